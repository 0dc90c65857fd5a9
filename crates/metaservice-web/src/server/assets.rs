//! The files of the page, which are in the program.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header;

use super::responses::{Code, refuse};

/// The names and the content of all files.
static ASSETS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// The page itself. It is the same at each of its addresses.
pub(super) async fn index() -> Response {
    match find("index.html") {
        Some(content) => {
            ([(header::CONTENT_TYPE, HTML), (header::CACHE_CONTROL, "no-store")], content)
                .into_response()
        }
        None => refuse(Code::NotFound, "the page was not built").into_response(),
    }
}

/// A file that the page needs. Its name has a digest of its content, so it never changes.
pub(super) async fn asset(Path(name): Path<String>) -> Response {
    match find(&name).zip(kind(&name)) {
        Some((content, kind)) => {
            let cache = "public, max-age=31536000, immutable";
            ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)], content)
                .into_response()
        }
        None => refuse(Code::NotFound, "there is no such file").into_response(),
    }
}

const HTML: &str = "text/html; charset=utf-8";

fn find(name: &str) -> Option<&'static [u8]> {
    ASSETS.iter().find(|(known, _)| *known == name).map(|(_, content)| *content)
}

fn kind(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest page, in bytes, without compression.
    const MAX_SIZE: usize = 1024 * 1024;

    #[test]
    fn the_page_is_whole_and_small() {
        let page = std::str::from_utf8(find("index.html").unwrap()).unwrap();
        let mut size = page.len();
        for (name, content) in ASSETS.iter().filter(|(name, _)| *name != "index.html") {
            // Some are loaded later, by others.
            let uses = |content: &[u8]| content.windows(name.len()).any(|at| at == name.as_bytes());
            let is_used = ASSETS.iter().any(|(_, content)| uses(content));
            assert!(is_used, "the page does not use {name}");
            assert!(kind(name).is_some(), "{name} has no content type");
            size += content.len();
        }
        assert!(ASSETS.len() >= 3, "there are a page, a script and a style: {}", ASSETS.len());
        assert!(size < MAX_SIZE, "{size} bytes");
        for inline in ["<style", "style=", "javascript:", "onload=", "http://", "https://"] {
            assert!(!page.contains(inline), "the page has {inline}, which its policy forbids");
        }
        let scripts = page.matches("<script").count();
        assert_eq!(scripts, page.matches("src=\"/assets/").count(), "each script is a file");
    }
}
