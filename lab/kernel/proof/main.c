// SPDX-License-Identifier: MIT OR Apache-2.0
// Proves that a kernel is the lab's: exits on missing memory as lab/kernel/exit-on-missing.patch says, private memory,
// the capabilities that go with them, and Hyper-V's system events. x86_64 only, as the patch is. TAP on stdout; exit
// code 0 if all holds, 1 if not, 2 if it could not be tried. build.mjs builds it and says how it is run.
#include "proof.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/utsname.h>

int main(void)
{
	struct utsname kernel;

	printf("TAP version 13\n");
	uname(&kernel);
	note("%s %s", kernel.release, kernel.version);
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		bail_out("/dev/kvm");
	prove_capabilities();
	if (capability(kvm, X_CAP_EXIT_ON_MISSING) <= 0) {
		note("no KVM_CAP_EXIT_ON_MISSING here: the rest has nothing to try");
		return finish();
	}
	prove_missing();
	prove_slots();
	prove_guests();
	prove_private();
	prove_hyperv();
	show_poison();
	return finish();
}
