//! The seeds of each fuzz target, and some mutations of them, which are the same each time.
//!
//! A failure prints the number of the mutation and the input. The environment variables
//! `FUZZ_FIRST` and `FUZZ_COUNT` are the first number and how many there are.

#![allow(clippy::unwrap_used)]

mod mutate;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use mutate::mutate;

fn fuzz_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The seeds of a target, with their names, in order.
fn seeds(target: &str) -> (Vec<String>, Vec<Vec<u8>>) {
    let directory = fuzz_directory().join("corpus").join(target);
    let mut files: Vec<_> =
        fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no seed", directory.display());
    let name = |file: &PathBuf| format!("seed {}", file.display());
    (files.iter().map(name).collect(), files.iter().map(|file| fs::read(file).unwrap()).collect())
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

/// Runs one input. If the target panics, it says how to run it again.
fn run(target: &str, run: fn(&[u8]), what: &str, input: &[u8]) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(input))) else { return };
    let hex = input.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    eprintln!("{target}: a fault at {what}. To keep the input as a seed:");
    eprintln!("  echo {hex} | xxd -r -p > fuzz/corpus/{target}/NAME");
    resume_unwind(panic);
}

/// Runs the seeds of a target, and a number of mutations of them.
fn fuzz(target: &str, target_run: fn(&[u8]), count: u64) {
    let (names, seeds) = seeds(target);
    for (name, seed) in names.iter().zip(&seeds) {
        run(target, target_run, name, seed);
    }
    let first = variable("FUZZ_FIRST").unwrap_or(0);
    for number in first..first + variable("FUZZ_COUNT").unwrap_or(count) {
        let input = mutate(&seeds, number);
        run(target, target_run, &format!("mutation {number}"), &input);
    }
}

/// A test for each target, with its number of mutations: about a second without optimization.
macro_rules! targets {
    ($($target:ident: $count:expr,)*) => {
        $(
            #[test]
            fn $target() {
                fuzz(stringify!($target), metaservice_fuzzing::$target::run, $count);
            }
        )*

        const TARGETS: &[&str] = &[$(stringify!($target)),*];
    };
}

targets! {
    action: 50_000,
    archive: 5_000,
    authority: 20_000,
    client_hello: 30_000,
    dns: 50_000,
    fleet_parse: 20_000,
    fleet_tunnel: 10_000,
    fleet_view: 2_500,
    header: 20_000,
    nic_frame: 3_000,
    nic_gateway: 400,
    payload: 30_000,
    policy: 40_000,
    requests: 250,
    shell_frame: 50_000,
    shell_session: 50_000,
    transfer: 60_000,
}

#[test]
fn each_target_has_a_test_a_program_and_seeds() {
    let stems = |directory: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz_directory().join(directory)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let tested: BTreeSet<String> = TARGETS.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(stems("fuzz_targets"), tested);
    assert_eq!(stems("corpus"), tested);
    let makefile = fs::read_to_string(fuzz_directory().join("../Makefile")).unwrap();
    let (_, list) = makefile.split_once("FUZZ_TARGETS = ").unwrap();
    let (list, _) = list.split_once("\n#").unwrap();
    let listed = list.split_whitespace().filter(|word| *word != "\\");
    assert_eq!(listed.map(str::to_owned).collect::<BTreeSet<_>>(), tested);
}
