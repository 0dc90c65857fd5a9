//! ClientHellos, byte by byte.

fn two(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap().to_be_bytes()
}

/// The extension with the server name.
pub(crate) fn sni(name: &str) -> (u16, Vec<u8>) {
    let name = name.as_bytes();
    (0, [&two(name.len() + 3)[..], &[0], &two(name.len()), name].concat())
}

/// The handshake message, without its record.
pub(crate) fn message(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, content) in extensions {
        list.extend(kind.to_be_bytes());
        list.extend(two(content.len()));
        list.extend(content);
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(two(list.len()));
    body.extend(list);
    [&[1, 0][..], &two(body.len()), &body].concat()
}

/// A record of a handshake.
pub(crate) fn record(content: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &two(content.len()), content].concat()
}

/// A ClientHello with this server name in one record.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    record(&message(&[sni(name)]))
}
