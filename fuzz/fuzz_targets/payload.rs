#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| metaservice_fuzzing::payload::run(data));
