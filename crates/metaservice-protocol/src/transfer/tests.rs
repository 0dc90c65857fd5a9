//! Transfers that are cut, changed or invalid.

use bytes::Bytes;
use proptest::prelude::*;

use super::block::{COMPRESSED, DATA, END, LENGTH_BITS, MARK};
use super::*;
use crate::failure::{Failure, FailureCode};
use crate::limits::{MAX_CURSOR, TRANSFER_BLOCK};

/// One block: its content, whether to compress it, and whether a mark follows.
type Block = (Vec<u8>, bool, bool);

fn encode(blocks: &[Block]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let mut all = Vec::new();
    for (n, (content, compress, mark)) in blocks.iter().enumerate() {
        if let Some(block) = compress.then(|| encoder.compressed(content)).flatten() {
            all.extend_from_slice(&block);
        } else {
            encoder
                .data(content.clone().into())
                .iter()
                .for_each(|part| all.extend_from_slice(part));
        }
        if *mark {
            all.extend_from_slice(&encoder.mark(&n.to_string()).unwrap());
        }
    }
    all.extend_from_slice(&encoder.end());
    all
}

fn content_of(blocks: &[Block]) -> Vec<u8> {
    blocks.iter().flat_map(|(content, ..)| content.clone()).collect()
}

/// Takes all items; whether the end has come.
fn take_all(decoder: &mut Decoder, content: &mut Vec<u8>) -> Result<bool, InvalidTransfer> {
    loop {
        match decoder.next()? {
            Some(Item::Data(data)) => content.extend_from_slice(&data),
            Some(Item::End) => return Ok(true),
            Some(Item::Failed(_)) | None => return Ok(false),
        }
    }
}

fn blocks() -> impl Strategy<Value = Vec<Block>> {
    let content = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..200),
        (1usize..3000).prop_map(|length| vec![7; length]),
    ];
    proptest::collection::vec((content, any::<bool>(), any::<bool>()), 0..12)
}

proptest! {
    #[test]
    fn content_arrives_in_whatever_pieces_it_is_sent(
        blocks in blocks(),
        pieces in proptest::collection::vec(1usize..300, 1..20),
    ) {
        let all = encode(&blocks);
        let expected = content_of(&blocks);
        let (mut decoder, mut content) = (Decoder::new(), Vec::new());
        let mut rest = Bytes::from(all);
        let mut pieces = pieces.iter().cycle();
        let mut ended = false;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(*pieces.next().unwrap()));
            decoder.push(piece);
            ended |= take_all(&mut decoder, &mut content).unwrap();
        }
        prop_assert!(ended && decoder.is_over());
        prop_assert_eq!(content, expected);
    }

    #[test]
    fn a_transfer_that_is_cut_anywhere_resumes_at_that_byte(
        blocks in blocks(),
        cut in any::<prop::sample::Index>(),
    ) {
        let all = encode(&blocks);
        let expected = content_of(&blocks);
        let (mut decoder, mut content) = (Decoder::new(), Vec::new());
        decoder.push(Bytes::copy_from_slice(&all[..cut.index(all.len())]));
        let ended = take_all(&mut decoder, &mut content).unwrap();
        prop_assert!(!ended);

        // The sender finds the place: `skip` bytes after the marked block.
        let resume = decoder.resume();
        let marked = resume.cursor.parse::<usize>().map_or(0, |n| n + 1);
        let after = content_of(&blocks[marked..]);
        let (passed, rest) = after.split_at(usize::try_from(resume.skip).unwrap());
        let mut digest = Digest::new();
        digest.update(passed);
        prop_assert_eq!(digest.value(), resume.digest);
        let rest = if rest.is_empty() { vec![] } else { vec![(rest.to_vec(), false, false)] };

        let mut decoder = decoder.resumed();
        decoder.push(encode(&rest).into());
        prop_assert!(take_all(&mut decoder, &mut content).unwrap());
        prop_assert_eq!(content, expected);
    }

    #[test]
    fn a_changed_bit_is_detected(
        blocks in blocks(),
        place in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut all = encode(&blocks);
        let place = place.index(all.len());
        all[place] ^= 1 << bit;
        let expected = content_of(&blocks);
        let (mut decoder, mut content) = (Decoder::new(), Vec::new());
        decoder.push(all.into());
        // Only the sender can detect a changed cursor.
        if take_all(&mut decoder, &mut content) == Ok(true) {
            prop_assert_eq!(content, expected);
        }
    }

    #[test]
    fn any_bytes_are_handled(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut decoder = Decoder::new();
        decoder.push(bytes.into());
        let _ = take_all(&mut decoder, &mut Vec::new());
    }
}

fn head(kind: u32, length: usize) -> Bytes {
    Bytes::copy_from_slice(&(kind << LENGTH_BITS | u32::try_from(length).unwrap()).to_be_bytes())
}

fn first(bytes: Bytes) -> Result<Option<Item>, InvalidTransfer> {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    decoder.next()
}

#[test]
fn a_block_has_a_maximum_length() {
    for (kind, length) in
        [(DATA, TRANSFER_BLOCK), (COMPRESSED, TRANSFER_BLOCK), (MARK, 16 + MAX_CURSOR), (END, 16)]
    {
        assert_eq!(first(head(kind, length)), Ok(None));
        let length = length + 1;
        assert_eq!(first(head(kind, length)), Err(InvalidTransfer::WrongLength { kind, length }));
    }
}

#[test]
fn a_data_block_is_not_empty() {
    let wrong = InvalidTransfer::WrongLength { kind: DATA, length: 0 };
    assert_eq!(first(head(DATA, 0)), Err(wrong));
}

#[test]
fn an_unknown_kind_is_an_error() {
    assert_eq!(first(head(5, 1)), Err(InvalidTransfer::UnknownKind(5)));
}

#[test]
fn a_cursor_that_is_too_long_makes_no_mark() {
    assert!(Encoder::new().mark(&"x".repeat(MAX_CURSOR)).is_some());
    assert_eq!(Encoder::new().mark(&"x".repeat(MAX_CURSOR + 1)), None);
}

#[test]
fn compressed_content_has_the_maximum_length_of_a_block() {
    let packed = lz4_flex::block::compress(&vec![0; TRANSFER_BLOCK + 1]);
    let mut block = head(COMPRESSED, 4 + packed.len()).to_vec();
    block.extend_from_slice(&u32::try_from(TRANSFER_BLOCK + 1).unwrap().to_be_bytes());
    block.extend_from_slice(&packed);
    let mut decoder = Decoder::new();
    decoder.push(block.into());
    assert_eq!(decoder.next(), Err(InvalidTransfer::Damaged));
    assert_eq!(decoder.next(), Err(InvalidTransfer::Damaged));
}

#[test]
fn nothing_follows_a_failure() {
    let failure = Failure::new(FailureCode::NoSpace, "full");
    let mut decoder = Decoder::new();
    decoder.push(Encoder::failed(&failure));
    assert_eq!(decoder.next(), Ok(Some(Item::Failed(failure))));
    assert_eq!(decoder.next(), Ok(None));
    decoder.push(Bytes::from_static(b"x"));
    assert_eq!(decoder.next(), Err(InvalidTransfer::AfterEnd));
}
