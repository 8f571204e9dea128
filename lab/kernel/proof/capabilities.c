// SPDX-License-Identifier: MIT OR Apache-2.0
// The capabilities that the lab relies on.
#include "proof.h"

#include <sys/ioctl.h>
#include <unistd.h>

void prove_capabilities(void)
{
	static const struct {
		int number, wanted;
		const char *claim;
	} table[] = {
		{ X_CAP_USER_MEMORY2, 1, "KVM_CAP_USER_MEMORY2 is there" },
		{ X_CAP_MEMORY_FAULT_INFO, 1, "KVM_CAP_MEMORY_FAULT_INFO is there" },
		{ X_CAP_MEMORY_ATTRIBUTES, X_ATTRIBUTE_PRIVATE, "KVM_CAP_MEMORY_ATTRIBUTES has PRIVATE" },
		{ X_CAP_GUEST_MEMFD, 1, "KVM_CAP_GUEST_MEMFD is there" },
		{ X_CAP_VM_TYPES, 1 << X_VM_DEFAULT | 1 << X_VM_SOFTWARE_PROTECTED, "KVM_CAP_VM_TYPES has software-protected VMs" },
		{ X_CAP_PRE_FAULT_MEMORY, 1, "KVM_CAP_PRE_FAULT_MEMORY is there" },
		{ X_CAP_GUEST_MEMFD_FLAGS, X_GUEST_MEMFD_MMAP | X_GUEST_MEMFD_INIT_SHARED, "KVM_CAP_GUEST_MEMFD_FLAGS has both flags" },
		{ X_CAP_EXIT_ON_MISSING, 1, "KVM_CAP_EXIT_ON_MISSING is there" },
	};

	for (unsigned i = 0; i < sizeof(table) / sizeof(*table); i++) {
		// /dev/kvm answers for the best VM it could make.
		int value = capability(kvm, table[i].number);

		check(value == table[i].wanted, table[i].claim, "capability %d: %d, wanted %d", table[i].number, value, table[i].wanted);
	}
}
