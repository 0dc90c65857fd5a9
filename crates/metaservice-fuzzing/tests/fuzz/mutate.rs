//! Mutations of an input. They follow from a number, so that each input can be made again.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};

/// The most bytes of a mutated input that is no seed itself.
const MAX: usize = 8192;

/// The most random bytes that one mutation inserts. Rarely there are more of them: where the bytes
/// stand for steps, these are many steps.
const MAX_INSERTED: usize = 64;
const MAX_NOISE: usize = 2048;

/// Numbers at the limits of types, and what has a meaning in text.
const TEXTS: [&[u8]; 12] = [
    b"0",
    b"-1",
    b"4294967296",
    b"18446744073709551615",
    b"18446744073709551616",
    b"1e400",
    b"null",
    b"\"",
    b"{}",
    b"\r\n",
    b"../",
    b"\\u0000",
];
const NUMBERS: [u64; 10] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// The input of this number: one of the seeds with one to eight changes.
pub(crate) fn mutate(seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(number);
    let mut input = pick(seeds, &mut random);
    for _ in 0..random.random_range(1..=8) {
        change(&mut input, seeds, &mut random);
    }
    input.truncate(MAX.max(seeds.iter().map(Vec::len).max().unwrap_or(0)));
    input
}

fn pick(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    seeds.choose(random).cloned().unwrap_or_default()
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut StdRng) {
    match random.random_range(0..9) {
        0 | 1 => {
            if let Some(at) = place(input, random) {
                input[at] ^= 1 << random.random_range(0..8);
            }
        }
        2 => {
            if let Some(at) = place(input, random) {
                input[at] = random.random();
            }
        }
        // A part is cut out. Often this is the end.
        3 => {
            let part = part(input, random);
            let is_end = random.random_bool(0.3);
            input.drain(if is_end { part.start..input.len() } else { part });
        }
        // A part of a seed replaces the rest, or is inserted.
        4 => {
            let other = pick(seeds, random);
            let other = other[part(&other, random)].to_vec();
            let at = random.random_range(0..=input.len());
            if random.random() {
                input.truncate(at);
            }
            insert(input, at, &other);
        }
        // A part is repeated.
        5 => {
            let part = part(input, random);
            let (at, bytes) = (part.end, input[part].to_vec());
            for _ in 0..random.random_range(1..=4) {
                insert(input, at, &bytes);
            }
        }
        // A number is written over what is there, or inserted.
        6 => {
            let bytes = number(random);
            let at = random.random_range(0..=input.len());
            if random.random() {
                input.drain(at..input.len().min(at + bytes.len()));
            }
            insert(input, at, &bytes);
        }
        7 => {
            let at = random.random_range(0..=input.len());
            insert(input, at, TEXTS.choose(random).expect("there are some"));
        }
        _ => {
            let most = if random.random_bool(0.2) { MAX_NOISE } else { MAX_INSERTED };
            let mut noise = vec![0; random.random_range(1..=most)];
            random.fill_bytes(&mut noise);
            let at = random.random_range(0..=input.len());
            insert(input, at, &noise);
        }
    }
}

fn place(input: &[u8], random: &mut StdRng) -> Option<usize> {
    (!input.is_empty()).then(|| random.random_range(0..input.len()))
}

fn part(input: &[u8], random: &mut StdRng) -> std::ops::Range<usize> {
    let (a, b) = (random.random_range(0..=input.len()), random.random_range(0..=input.len()));
    a.min(b)..a.max(b)
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if input.len() + bytes.len() <= MAX {
        input.splice(at..at, bytes.iter().copied());
    }
}

/// A number of one to eight bytes, in either order of the bytes.
fn number(random: &mut StdRng) -> Vec<u8> {
    let number = *NUMBERS.choose(random).expect("there are some");
    let size = 1 << random.random_range(0..=3);
    match random.random() {
        true => number.to_be_bytes()[8 - size..].to_vec(),
        false => number.to_le_bytes()[..size].to_vec(),
    }
}

#[test]
fn mutations_are_the_same_each_time_and_of_many_kinds() {
    let seeds = [b"one seed".to_vec(), b"and another".to_vec()];
    let inputs: Vec<_> = (0..2000).map(|number| mutate(&seeds, number)).collect();
    let again: Vec<_> = (0..2000).map(|number| mutate(&seeds, number)).collect();
    assert_eq!(inputs, again);
    let distinct: std::collections::BTreeSet<_> = inputs.iter().collect();
    assert!(distinct.len() > 1800, "{} inputs", distinct.len());
    assert!(inputs.iter().all(|input| input.len() <= MAX));
    let is_there = |found: fn(&[u8]) -> bool| inputs.iter().any(|input| found(input));
    assert!(is_there(<[u8]>::is_empty), "none is cut to nothing");
    assert!(is_there(|input| input.len() == 8 && input != b"one seed"), "no byte is changed");
    assert!(is_there(|input| input.ends_with(b"her") && input.starts_with(b"one")), "no splice");
    assert!(is_there(|input| input.windows(8).any(|part| part == b"seedseed")), "no repeat");
    assert!(is_there(|input| input.windows(4).any(|part| part == [0xff; 4])), "no number");
    assert!(is_there(|input| input.windows(5).any(|part| part == b"1e400")), "no text");
    // Without a seed there is still something.
    assert!((0..100).any(|number| mutate(&[], number).len() > 8));
}
