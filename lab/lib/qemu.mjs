// QEMU's command line for a lab machine: a pure function. Emulation only (TCG), with KVM inside it.

const EMULATORS = {
  x86_64: {
    command: 'qemu-system-x86_64',
    // max brings nested SVM.
    args: ['-machine', 'q35,usb=off,vmport=off', '-cpu', 'max'],
    console: 'ttyS0',
    boot: ['no_timer_check', 'tsc=reliable'],
  },
  aarch64: {
    command: 'qemu-system-aarch64',
    // Emulating the architecture's own pointer authentication makes a boot three times as long.
    args: ['-machine', 'virt,virtualization=on,gic-version=3', '-cpu', 'max,pauth-impdef=on'],
    console: 'ttyAMA0',
    boot: [],
  },
};

/** The emulator for an architecture. */
export function emulator(arch) {
  return EMULATORS[arch].command;
}

/**
 * The command that boots a machine and ends with it: `{ command, args }`. `root` is `{ folder }` (seen over 9p) or
 * `{ image }`; `shares` are `{ path, mode }`; `ports` are the files of console, stdout, stderr and status.
 */
export function qemuCommand({ arch, kernel, initrd, root, shares, ports, memoryMib, cpus }) {
  const { command, args, console: tty, boot } = EMULATORS[arch];
  const emulated = [
    args,
    ['-accel', 'tcg,thread=multi', '-smp', String(cpus), '-m', String(memoryMib)],
    ['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ['-kernel', kernel, '-initrd', initrd, '-append', kernelArguments(tty, boot)],
    ['-serial', `file:${quoted(ports.console)}`],
    root.image ? image(root.image) : folder('root', root.folder, true),
    ...shares.map(({ path, mode }, index) => folder(`share${index}`, path, mode !== 'rw')),
    ['-device', 'virtio-serial-pci'],
    ...['out', 'err', 'status'].map((name, index) => port(name, index + 1, ports[name])),
    ['-object', 'rng-random,id=rng0,filename=/dev/urandom', '-device', 'virtio-rng-pci,rng=rng0'],
  ].flat();
  // The emulator dies with this process, however that ends.
  return { command: 'setpriv', args: ['--pdeathsig', 'KILL', '--', command, ...emulated] };
}

/** A panic ends the machine at once (panic=-1 with -no-reboot), and an oops is one: half a kernel proves nothing. */
function kernelArguments(tty, boot) {
  const quick = ['quiet', 'cryptomgr.notests', 'mitigations=off', 'nokaslr', ...boot];
  return [`console=${tty}`, 'panic=-1', 'oops=panic', ...quick].join(' ');
}

function image(path) {
  return [
    '-drive',
    `if=none,id=root,format=raw,readonly=on,file=${quoted(path)}`,
    '-device',
    'virtio-blk-pci,drive=root',
  ];
}

function folder(tag, path, readonly) {
  const mode = readonly ? ',readonly=on' : '';
  return ['-virtfs', `local,path=${quoted(path)},mount_tag=${tag},security_model=none,multidevs=remap${mode}`];
}

function port(name, number, path) {
  return [
    '-chardev',
    `file,id=${name},path=${quoted(path)}`,
    '-device',
    `virtserialport,nr=${number},chardev=${name},name=lab.${name}`,
  ];
}

/** In QEMU's options a comma ends a value; two are one. */
function quoted(path) {
  return path.replaceAll(',', ',,');
}
