// SPDX-License-Identifier: MIT OR Apache-2.0
// Hyper-V's MSRs for reset and crash: the system events that x86 can raise.
#include "proof.h"

#include <string.h>

#define HV_GUEST_OS_ID 0x40000000u
#define HV_RESET 0x40000003u
#define HV_CRASH_CTL 0x40000105u

// The interface leaf turns Hyper-V on for the vCPU.
static const struct kvm_cpuid_entry2 HYPERV[] = {
	{ .function = 0x40000000, .eax = 0x40000005, .ebx = 0x7263694d, .ecx = 0x666f736f, .edx = 0x76482074 }, // "Microsoft Hv"
	{ .function = 0x40000001, .eax = 0x31237648 },                                                            // "Hv#1"
	{ .function = 0x40000003, .eax = 1 << 5 | 1 << 6 | 1 << 7, .edx = 1 << 10 }, // hypercall, index and reset MSRs; crash MSRs
};

// Adds `mov ecx, msr; mov eax, low; mov edx, high; wrmsr`.
static size_t add_wrmsr(uint8_t *code, uint32_t msr, uint64_t value)
{
	const struct {
		uint8_t opcode;
		uint32_t value;
	} moves[] = { { 0xb9, msr }, { 0xb8, (uint32_t)value }, { 0xba, (uint32_t)(value >> 32) } };
	size_t size = 0;

	for (unsigned i = 0; i < 3; i++) {
		code[size++] = moves[i].opcode;
		memcpy(code + size, &moves[i].value, 4);
		size += 4;
	}
	code[size++] = 0x0f;
	code[size++] = 0x30;
	return size;
}

static void event(const char *claim, uint32_t msr, uint64_t value, uint32_t type, bool irqchip)
{
	static const uint8_t end[] = { 0xe6, END_PORT, 0xf4 };
	struct vm vm = vm_create((struct setup){ .irqchip = irqchip });
	uint8_t code[64];
	size_t size = add_wrmsr(code, HV_GUEST_OS_ID, 1);
	uint64_t data;
	uint32_t seen;

	size += add_wrmsr(code + size, msr, value);
	memcpy(code + size, end, sizeof(end));
	set_cpuid(&vm, HYPERV, sizeof(HYPERV) / sizeof(*HYPERV));
	execute(&vm, (struct program){ code, size + sizeof(end) }, (struct start){ 0 });
	seen = vm.run->system_event.type;
	memcpy(&data, (uint8_t *)&vm.run->hw + 8, sizeof(data));
	// ndata is 0, and KVM writes no data: what lies there is stale.
	check(!vm.error && vm.run->exit_reason == KVM_EXIT_SYSTEM_EVENT && seen == type && data == 0xa5a5a5a5a5a5a5a5ull, claim,
	      "%s, type %u, data 0x%llx", exit_text(&vm), seen, (long long)data);
	vm_close(&vm);
}

void prove_hyperv(void)
{
	event("hyper-v: the reset MSR is a system event, reset", HV_RESET, 1, KVM_SYSTEM_EVENT_RESET, true);
	event("hyper-v: without an interrupt controller too", HV_RESET, 1, KVM_SYSTEM_EVENT_RESET, false);
	event("hyper-v: the crash MSR is a system event, crash", HV_CRASH_CTL, 1ull << 63, KVM_SYSTEM_EVENT_CRASH, true);
}
