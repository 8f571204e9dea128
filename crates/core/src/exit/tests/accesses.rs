use super::*;

const IO: u32 = 2;
const MMIO: u32 = 6;

fn io(direction: u8, size: u8, port: u16, count: u32, data_offset: u64) -> Page {
    Page::of(IO).u8(direction).u8(size).u16(port).u32(count).u64(data_offset)
}

fn mmio(gpa: u64, data: [u8; 8], len: u32, is_write: u8) -> Page {
    Page::of(MMIO).u64(gpa).with(&data).u32(len).u8(is_write)
}

#[test]
fn string_output_keeps_every_element() {
    let page = io(1, 2, 0x3f8, 3, 4096).put(4096, b"abcdef");
    assert_eq!(page.exit(), Exit::IoOut { port: 0x3f8, size: 2, count: 3, data: Box::from(*b"abcdef") });
    assert_eq!(page.pending(), Pending::Completion);
}

#[test]
fn port_input_brings_no_stale_bytes_and_wants_all_elements() {
    let page = io(0, 4, 0xcfc, 3, 4096);
    assert_eq!(page.exit(), Exit::IoIn { port: 0xcfc, size: 4, count: 3 });
    assert_eq!(page.pending(), Pending::Answer(Wanted::bytes(4096, 12)));
}

#[test]
fn port_data_may_end_with_the_page_and_not_behind_it() {
    let last = io(1, 4, 1, 2, 8184).put(8184, b"12345678");
    assert_eq!(last.exit(), Exit::IoOut { port: 1, size: 4, count: 2, data: Box::from(*b"12345678") });
    for (size, count, offset) in [
        (4, 2, 8185),
        (1, 1, 8192),
        (4, u32::MAX, 4096),
        (1, 1, u64::MAX),
        (1, 1, 0),
        (1, 1, 7),
        (1, 1, 16),
        (1, 1, 287),
        (3, 1, 4096),
        (0, 1, 4096),
        (8, 1, 4096),
        (1, 0, 4096),
    ] {
        let page = io(1, size, 1, count, offset);
        let Exit::Unknown { reason: IO, bytes, hardware_reason: None } = page.exit() else {
            panic!("size {size}, count {count}, offset {offset:#x} was believed");
        };
        assert_eq!(*bytes, page.bytes[32..288]);
        assert_eq!(page.pending(), Pending::Completion);
    }
    assert_eq!(io(2, 1, 1, 1, 4096).exit().kind(), "unknown", "a direction that there is not");
}

#[test]
fn mmio_keeps_as_many_bytes_as_it_says() {
    let data = [1, 2, 3, 4, 5, 6, 7, 8];
    let written = mmio(0xfee0_0000, data, 3, 1);
    assert_eq!(written.exit(), Exit::MmioWrite { gpa: 0xfee0_0000, data: Box::from([1, 2, 3]) });
    assert_eq!(written.pending(), Pending::Completion);
    let read = mmio(0xfee0_0000, data, 3, 0);
    assert_eq!(read.exit(), Exit::MmioRead { gpa: 0xfee0_0000, size: 3 });
    assert_eq!(read.pending(), Pending::Answer(Wanted::bytes(40, 3)));
    let widest = mmio(1 << 51, data, 8, 0xff);
    assert_eq!(widest.exit(), Exit::MmioWrite { gpa: 1 << 51, data: Box::from(data) });
    for len in [0, 9, 0x103, u32::MAX] {
        assert_eq!(mmio(0, data, len, 1).exit().kind(), "unknown", "{len}");
    }
}

#[test]
fn an_access_cut_short_is_unknown() {
    assert_needs(&mmio(0, [0; 8], 1, 1), 53, X86);
    // Of a port access the data lie behind.
    assert_eq!(io(1, 1, 1, 1, 4096).cut(4097).kind(), "io");
    assert_eq!(io(1, 1, 1, 1, 4096).cut(4096).kind(), "unknown");
    assert_eq!(io(1, 1, 1, 1, 288).cut(289).kind(), "io");
    assert_eq!(io(1, 1, 1, 1, 288).cut(47).kind(), "unknown");
}
