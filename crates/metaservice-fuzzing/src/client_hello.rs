//! ClientHellos of a guest. What passes does not depend on how the bytes are split, and no record
//! passes that says another name in plain text.

use metaservice_egress::tls::{ClientHello, Hellos, InvalidHello, MAX_CLIENT_HELLO, Scan};

/// What becomes of the bytes in pieces of this size: how many pass, and whether it ends.
fn follow(any_name: bool, data: &[u8], size: usize) -> (usize, Option<InvalidHello>) {
    let mut hellos = Hellos::new("a.example".parse().expect("a name"), any_name);
    let (mut held, mut passed) = (Vec::new(), 0);
    for piece in data.chunks(size) {
        held.extend_from_slice(piece);
        match hellos.scan(&held) {
            Ok(count) => {
                held.drain(..count);
                passed += count;
            }
            Err(error) => return (passed, Some(error)),
        }
        assert!(held.len() <= MAX_CLIENT_HELLO + size);
    }
    (passed, None)
}

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(input: &[u8]) {
    // The last byte is the size of the pieces.
    let Some((size, data)) = input.split_last() else { return };
    let size = usize::from(*size) + 1;
    for any_name in [false, true] {
        let (passed, error) = follow(any_name, data, size);
        let (whole, whole_error) = follow(any_name, data, data.len().max(1));
        match whole_error {
            // The bytes before the fault may pass when they come earlier.
            Some(_) => assert!(error.is_some()),
            None => assert_eq!((passed, error), (whole, None)),
        }
        let first = ClientHello::scan(data);
        if passed > 0 && !any_name {
            // A message that ends in the first pieces has the name.
            let Scan::Complete(hello) = ClientHello::scan(&data[..passed]) else {
                // More than one message passed.
                assert_ne!(first, Scan::More);
                return;
            };
            assert!(!hello.encrypted);
            assert_eq!(hello.server_name.expect("a name").as_str(), "a.example");
        }
    }
}
