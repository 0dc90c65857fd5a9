//! The certificate of a server.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::counted::Counted;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A certificate and its key.
#[derive(Clone)]
pub struct Identity {
    config: Arc<ServerConfig>,
    fingerprint: String,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The text has no certificates.
    #[error("there is no certificate in PEM form")]
    Chain(#[source] pem::Error),
    /// The text has no private key.
    #[error("there is no private key in PEM form")]
    Key(#[source] pem::Error),
    /// The certificate and the key do not go together, or one of them is not supported.
    #[error("the certificate and the key cannot be used")]
    Pair(#[source] rustls::Error),
    /// A certificate cannot be made.
    #[error("a certificate cannot be made")]
    Make(#[source] rcgen::Error),
}

/// A certificate that was made, and its key, as text in PEM form.
pub struct MadeIdentity {
    /// The certificate.
    pub certificate: String,
    /// The key. It is a secret.
    pub key: String,
}

impl MadeIdentity {
    /// Makes a certificate for these names and addresses. Browsers do not trust it: their users
    /// compare its fingerprint.
    ///
    /// # Errors
    /// [`IdentityError::Make`].
    pub fn new(names: &[String]) -> Result<Self, IdentityError> {
        let key = KeyPair::generate().map_err(IdentityError::Make)?;
        let mut params = CertificateParams::new(names).map_err(IdentityError::Make)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "metaservice web");
        let certificate = params.self_signed(&key).map_err(IdentityError::Make)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

impl fmt::Debug for MadeIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MadeIdentity")
    }
}

impl Identity {
    /// The certificate, with those above it, and its key, both in PEM form.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(IdentityError::Chain)?;
        let first = chain.first().ok_or(IdentityError::Chain(pem::Error::NoItemsFound))?;
        let fingerprint = fingerprint(first);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(IdentityError::Key)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
            .map_err(IdentityError::Pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), fingerprint })
    }

    /// SHA-256 of the certificate, as browsers show it: pairs of hexadecimal digits with colons.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Begins TLS on a connection that was accepted.
    pub(super) async fn accept(&self, stream: Counted<TcpStream>) -> io::Result<Secured> {
        let accepting = TlsAcceptor::from(Arc::clone(&self.config)).accept(stream);
        timeout(HANDSHAKE_TIMEOUT, accepting).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}

pub(super) type Secured = TlsStream<Counted<TcpStream>>;

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish()
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest: Vec<_> =
        Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    digest.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_goes_with_its_key() {
        let names = ["jobs.example".to_owned(), "192.0.2.7".to_owned()];
        let (one, other) = (MadeIdentity::new(&names).unwrap(), MadeIdentity::new(&names).unwrap());
        let of = |chain: &str, key: &str| Identity::from_pem(chain.as_bytes(), key.as_bytes());
        let identity = of(&one.certificate, &one.key).unwrap();
        assert_eq!(identity.fingerprint().len(), 32 * 3 - 1);
        assert_ne!(identity.fingerprint(), of(&other.certificate, &other.key).unwrap().fingerprint);
        assert!(matches!(of(&one.certificate, &other.key), Err(IdentityError::Pair(_))));
        assert!(matches!(of("", &one.key), Err(IdentityError::Chain(_))));
        assert!(matches!(of(&one.certificate, "x"), Err(IdentityError::Key(_))));
        assert_eq!(format!("{one:?}"), "MadeIdentity");
    }
}
