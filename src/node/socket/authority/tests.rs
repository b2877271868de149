use super::*;
use proptest::prelude::*;

/// What driver v1.5.6 (grpc-go) sent for two Mounts; the second refers to `:authority` by index.
const CAPTURE: &[u8] = include_bytes!("../../../../tests/data/driver-1.5.6-two-calls.bin");

fn rewritten(bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
    let (mut adapter, mut bytes) = (AuthorityAdapter::new(), bytes.to_vec());
    let mut begin = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        let cut = cut.clamp(begin, bytes.len());
        adapter.rewrite(&mut bytes[begin..cut]);
        begin = cut;
    }
    bytes
}

/// A connection with one HEADERS frame: flags, bytes before the block, the block, bytes after it.
fn connection(flags: u8, before: &[u8], block: &[u8], after: &[u8]) -> Vec<u8> {
    let payload = before.len() + block.len() + after.len();
    let mut bytes = PREFACE.to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend([
        0,
        (payload >> 8) as u8,
        payload as u8,
        HEADERS,
        flags,
        0,
        0,
        0,
        1,
    ]);
    bytes.extend([before, block, after].concat());
    bytes
}

/// A plain literal `:authority` that enters the table.
fn plain(value: &[u8]) -> Vec<u8> {
    [&[0x41, value.len() as u8], value].concat()
}

#[test]
fn only_the_authority_of_a_recorded_connection_changes() {
    let after = rewritten(CAPTURE, &[]);
    let changed: Vec<usize> = (0..CAPTURE.len())
        .filter(|i| CAPTURE[*i] != after[*i])
        .collect();
    // 0x41 0xa0 introduces a Huffman-coded value of 32 bytes.
    let value = CAPTURE.windows(2).position(|w| w == [0x41, 0xa0]).unwrap() + 2;
    assert!(changed.iter().all(|i| (value..value + 32).contains(i)));
    assert!(after[value..value + 32].iter().all(|b| *b == HUFFMAN_FILL));
}

#[test]
fn how_bytes_are_split_makes_no_difference() {
    let whole = rewritten(CAPTURE, &[]);
    for cut in 0..CAPTURE.len() {
        assert_eq!(rewritten(CAPTURE, &[cut]), whole, "cut at {cut}");
    }
    let every: Vec<usize> = (0..CAPTURE.len()).collect();
    assert_eq!(rewritten(CAPTURE, &every), whole);
}

#[test]
fn paths_are_overwritten_in_every_framing() {
    let block = plain(b"/run/cce.sock");
    let expected = plain(b"xxxxxxxxxxxxx");
    for (flags, before, after) in [
        (4, &b""[..], &b""[..]),
        (4 | PADDED, &[3], &[0, 0, 0]),
        (4 | PRIORITY, &[0, 0, 0, 0, 9], &[]),
        (4 | PADDED | PRIORITY, &[1, 0, 0, 0, 0, 9], &[0]),
    ] {
        let bytes = connection(flags, before, &block, after);
        assert_eq!(
            rewritten(&bytes, &[]),
            connection(flags, before, &expected, after)
        );
    }
    for value in [&b"%2Frun%2Fcce.sock"[..], b"/"] {
        let bytes = connection(4, &[], &plain(value), &[]);
        assert!(rewritten(&bytes, &[]).ends_with(&vec![b'x'; value.len()]));
    }
}

#[test]
fn literal_names_and_continuations_are_handled() {
    let literal = [&[0x00, 10], AUTHORITY, &[2], b"/a"].concat();
    assert!(rewritten(&connection(4, &[], &literal, &[]), &[]).ends_with(b"xx"));
    let coded = [&[0x10, 0x88], AUTHORITY_HUFFMAN, &[2], b"/a"].concat();
    assert!(rewritten(&connection(4, &[], &coded, &[]), &[]).ends_with(b"xx"));
    // The value starts in HEADERS and ends in CONTINUATION.
    let mut bytes = connection(0, &[], &[0x41, 6, b'/', b'a'], &[]);
    bytes.extend([0, 0, 4, CONTINUATION, 4, 0, 0, 0, 1]);
    bytes.extend(b"/b/c");
    assert!(rewritten(&bytes, &[]).ends_with(b"xxxx"));
}

#[test]
fn other_names_and_values_are_unchanged() {
    let coded_localhost = [0x41, 0x86, 0xa0, 0xe4, 0x1d, 0x13, 0x9d, 0x09];
    let path_header = [&[0x44, 7], &b"/a/path"[..]].concat();
    let other_name = [&[0x40, 3], &b"x-y"[..], &[2], b"/a"].concat();
    let by_index = [0xc1, 0x7e, 2, b'/', b'a', 0x3f, 0xe1, 0x1f];
    for block in [
        &plain(b"localhost")[..],
        &coded_localhost,
        &path_header,
        &other_name,
        &by_index,
    ] {
        let bytes = connection(4, &[], block, &[]);
        assert_eq!(rewritten(&bytes, &[]), bytes, "{block:?}");
    }
}

#[test]
fn other_protocols_pass_unchanged() {
    let http1 = b"GET / HTTP/1.1\r\nHost: /\r\n\r\n";
    assert_eq!(rewritten(http1, &[]), http1);
    // A length that no driver sends disables the adapter.
    let long = connection(
        4,
        &[],
        &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, b'/'],
        &[],
    );
    assert_eq!(rewritten(&long, &[]), long);
}

proptest! {
    #[test]
    fn arbitrary_bytes_keep_their_length_and_do_not_depend_on_splits(
        tail in proptest::collection::vec(any::<u8>(), 0..400),
        with_preface in any::<bool>(),
        mut cuts in proptest::collection::vec(0usize..430, 0..8),
    ) {
        let bytes = if with_preface { [PREFACE, &tail].concat() } else { tail };
        cuts.sort_unstable();
        let whole = rewritten(&bytes, &[]);
        prop_assert_eq!(whole.len(), bytes.len());
        prop_assert_eq!(rewritten(&bytes, &cuts), whole);
    }

    #[test]
    fn arbitrary_blocks_do_not_panic(block in proptest::collection::vec(any::<u8>(), 0..300), flags in any::<u8>()) {
        let bytes = connection(flags, &[], &block, &[]);
        prop_assert_eq!(rewritten(&bytes, &[]).len(), bytes.len());
    }
}
