//! HTTP requests of a guest, with the responses of a server. What passes does not depend on how the
//! bytes are split, and each complete head that passes is for the name.

use metaservice_egress::http::{InvalidRequest, MAX_HEAD, Requests};

/// What becomes of the bytes in pieces of this size: those that pass, and whether it ends.
fn follow(response: &[u8], data: &[u8], size: usize) -> (Vec<u8>, Option<InvalidRequest>) {
    let mut requests = Requests::new("a.example".parse().expect("a name"), 80);
    let (mut held, mut passed) = (Vec::new(), Vec::new());
    for piece in data.chunks(size) {
        held.extend_from_slice(piece);
        let waits = loop {
            let progress = match requests.scan(&held) {
                Ok(progress) => progress,
                Err(error) => return (passed, Some(error)),
            };
            passed.extend(held.drain(..progress.forward));
            // A response that is not enough is never followed by more.
            let waits = requests.awaits_response() && !requests.response(response);
            if waits || progress.forward == 0 {
                break waits;
            }
        };
        if waits {
            break;
        }
        assert!(held.len() <= MAX_HEAD + size);
    }
    (passed, None)
}

/// Whether a `Host` is that of the name and the port.
fn is_right(host: &[u8]) -> bool {
    let Some(rest) = host.to_ascii_lowercase().strip_prefix(b"a.example").map(<[u8]>::to_vec)
    else {
        return false;
    };
    match rest.strip_prefix(b".").unwrap_or(&rest) {
        [] => true,
        // Zeros before it are still the port.
        [b':', port @ ..] => {
            let zeros = port.iter().take_while(|byte| **byte == b'0').count();
            port[zeros..] == *b"80"
        }
        _ => false,
    }
}

/// Runs the target on one input. It panics if the input shows a fault.
pub fn run(input: &[u8]) {
    // The last bytes are the size of the pieces, and that of the response before them.
    let [data @ .., length, size] = input else { return };
    let (data, response) = data.split_at(data.len().saturating_sub(usize::from(*length)));
    let (passed, error) = follow(response, data, usize::from(*size) + 1);
    let (whole, whole_error) = follow(response, data, data.len().max(1));
    assert_eq!(whole_error.is_some(), error.is_some(), "{whole_error:?} {error:?}");
    if error.is_none() {
        assert_eq!(passed, whole);
    }
    // The first head, as another parser reads it.
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    if let Ok(httparse::Status::Complete(length)) = request.parse(&passed) {
        let hosts = request.headers.iter().filter(|one| one.name.eq_ignore_ascii_case("host"));
        let hosts: Vec<_> = hosts.map(|host| host.value).collect();
        let [host] = &hosts[..] else { panic!("{length}: {hosts:?}") };
        assert!(is_right(host), "{host:?}");
        assert_ne!(request.method, Some("CONNECT"));
    }
}
