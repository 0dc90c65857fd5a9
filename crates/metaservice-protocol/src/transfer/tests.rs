use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::failure::{Failure, FailureCode};
use crate::limits::{MAX_CURSOR, TRANSFER_BLOCK};

/// The whole encoding, compressed where `packed` says so, with marks.
fn encode(blocks: &[(Vec<u8>, bool, bool)]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let mut all = Vec::new();
    for (n, (content, packed, mark)) in blocks.iter().enumerate() {
        if let Some(block) = packed.then(|| encoder.compressed(content)).flatten() {
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

fn drain(decoder: &mut Decoder, content: &mut Vec<u8>) -> Result<bool, InvalidTransfer> {
    loop {
        match decoder.next()? {
            Some(Item::Data(data)) => content.extend_from_slice(&data),
            Some(Item::End) => return Ok(true),
            Some(Item::Failed(_)) | None => return Ok(false),
        }
    }
}

fn blocks() -> impl Strategy<Value = Vec<(Vec<u8>, bool, bool)>> {
    let content = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..200),
        (1usize..3000).prop_map(|length| vec![7; length]),
    ];
    proptest::collection::vec((content, any::<bool>(), any::<bool>()), 0..12)
}

proptest! {
    #[test]
    fn what_is_sent_comes_out_however_it_is_cut_into_pieces(
        blocks in blocks(),
        pieces in proptest::collection::vec(1usize..300, 1..20),
    ) {
        let all = encode(&blocks);
        let expected: Vec<u8> = blocks.iter().flat_map(|(content, ..)| content.clone()).collect();
        let (mut decoder, mut content) = (Decoder::new(), Vec::new());
        let mut rest = Bytes::from(all);
        let mut pieces = pieces.iter().cycle();
        let mut ended = false;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(*pieces.next().unwrap()));
            decoder.push(piece);
            ended |= drain(&mut decoder, &mut content).unwrap();
        }
        prop_assert!(ended && decoder.is_over());
        prop_assert_eq!(content, expected);
    }

    #[test]
    fn a_cut_anywhere_is_resumed_at_the_very_byte(blocks in blocks(), cut in any::<prop::sample::Index>()) {
        let all = encode(&blocks);
        let expected: Vec<u8> = blocks.iter().flat_map(|(content, ..)| content.clone()).collect();
        let (mut decoder, mut content) = (Decoder::new(), Vec::new());
        decoder.push(Bytes::copy_from_slice(&all[..cut.index(all.len())]));
        let ended = drain(&mut decoder, &mut content).unwrap();
        prop_assert!(!ended);

        // The sender finds its place again: behind the marked block, and `skip` bytes on.
        let resume = decoder.resume();
        let marked = resume.cursor.parse::<usize>().map_or(0, |n| n + 1);
        let after: Vec<u8> = blocks[marked..].iter().flat_map(|(content, ..)| content.clone()).collect();
        let (passed, rest) = after.split_at(usize::try_from(resume.skip).unwrap());
        let mut digest = Digest::new();
        digest.update(passed);
        prop_assert_eq!(digest.value(), resume.digest);
        let rest = if rest.is_empty() { vec![] } else { vec![(rest.to_vec(), false, false)] };

        let mut decoder = decoder.resumed();
        decoder.push(encode(&rest).into());
        prop_assert!(drain(&mut decoder, &mut content).unwrap());
        prop_assert_eq!(content, expected);
    }

    #[test]
    fn a_changed_bit_is_noticed(blocks in blocks(), place in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut all = encode(&blocks);
        let place = place.index(all.len());
        all[place] ^= 1 << bit;
        let expected: Vec<u8> = blocks.iter().flat_map(|(content, ..)| content.clone()).collect();
        let (mut decoder, mut content) = (Decoder::new(), Vec::new());
        decoder.push(all.into());
        // A changed cursor is the one thing that the sender notices, not the receiver.
        if drain(&mut decoder, &mut content) == Ok(true) {
            prop_assert_eq!(content, expected);
        }
    }

    #[test]
    fn rubbish_never_panics(rubbish in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut decoder = Decoder::new();
        decoder.push(rubbish.into());
        let _ = drain(&mut decoder, &mut Vec::new());
    }
}

fn head(kind: u32, length: usize) -> Bytes {
    Bytes::copy_from_slice(&(kind << LENGTH_BITS | u32::try_from(length).unwrap()).to_be_bytes())
}

#[test]
fn the_bounds_and_one_past_them() {
    let first = |bytes: Bytes| {
        let mut decoder = Decoder::new();
        decoder.push(bytes);
        decoder.next()
    };
    for (kind, length) in
        [(DATA, TRANSFER_BLOCK), (COMPRESSED, TRANSFER_BLOCK), (MARK, 16 + MAX_CURSOR), (END, 16)]
    {
        assert_eq!(first(head(kind, length)), Ok(None));
        let length = length + 1;
        assert_eq!(first(head(kind, length)), Err(InvalidTransfer::WrongLength { kind, length }));
    }
    let length = 0;
    assert_eq!(first(head(DATA, 0)), Err(InvalidTransfer::WrongLength { kind: DATA, length }));
    assert_eq!(first(head(5, 1)), Err(InvalidTransfer::UnknownKind(5)));
    assert_eq!(Encoder::new().mark(&"x".repeat(MAX_CURSOR + 1)), None);
}

#[test]
fn a_compressed_block_cannot_grow_beyond_a_block() {
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
fn a_failure_ends_a_transfer_and_nothing_follows() {
    let failure = Failure::new(FailureCode::NoSpace, "full");
    let mut decoder = Decoder::new();
    decoder.push(Encoder::failed(&failure));
    assert_eq!(decoder.next(), Ok(Some(Item::Failed(failure))));
    assert_eq!(decoder.next(), Ok(None));
    decoder.push(Bytes::from_static(b"x"));
    assert_eq!(decoder.next(), Err(InvalidTransfer::AfterEnd));
}
