//! The bus's own certificate authority and the servers' certificates.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::files::Builder;
use super::{Server, SetupError};

const CA_CERT: &str = "ca/ca.pem";
const CA_KEY: &str = "ca/ca-key.pem";

/// The authority's parameters. A later run makes the same ones again and signs with the kept key, so they must not
/// change.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Ostler bus CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn failed(what: &str) -> impl Fn(rcgen::Error) -> SetupError {
    move |source| SetupError::Certificate { what: what.to_owned(), source }
}

/// The authority, and a certificate for every server that has none or whose address changed.
pub(super) fn issue(out: &mut Builder<'_>, servers: &[Server], before: &[Server]) -> Result<(), SetupError> {
    let key = match out.kept_text(CA_KEY)? {
        Some(pem) => KeyPair::from_pem(&pem).map_err(failed("the certificate authority"))?,
        None => KeyPair::generate().map_err(failed("the certificate authority"))?,
    };
    let certificate = match (out.kept_text(CA_CERT)?, out.is_kept(CA_KEY)) {
        (Some(pem), true) => pem,
        (Some(_) | None, _) => {
            authority().self_signed(&key).map_err(failed("the certificate authority"))?.pem()
        }
    };
    out.open(CA_CERT, certificate.clone().into_bytes());
    out.open("nats/tls/ca.pem", certificate.into_bytes());
    out.secret(CA_KEY, key.serialize_pem().into_bytes());
    let issuer = Issuer::new(authority(), key);
    for server in servers {
        let cert_path = format!("nats/tls/{}.pem", server.name);
        let key_path = format!("nats/tls/{}-key.pem", server.name);
        let same = before.iter().any(|b| b.name == server.name && b.host == server.host);
        if same && out.keep(&cert_path, false) && out.keep(&key_path, true) {
            continue;
        }
        let (cert, key) = server_certificate(server, &issuer)?;
        out.open(&cert_path, cert.into_bytes());
        out.secret(&key_path, key.into_bytes());
    }
    Ok(())
}

fn server_certificate(server: &Server, issuer: &Issuer<'_, KeyPair>) -> Result<(String, String), SetupError> {
    let failed = failed(server.name.as_str());
    let mut names = vec![server.host.clone(), server.name.to_string()];
    // A client on the server's own host may use the loopback.
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names.sort();
    names.dedup();
    let mut params = CertificateParams::new(names).map_err(&failed)?;
    params.distinguished_name.push(DnType::CommonName, server.name.as_str());
    params.use_authority_key_identifier_extension = true;
    // Towards another server of its cluster a server is also a client, and proves itself with the same certificate.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().map_err(&failed)?;
    let certificate = params.signed_by(&key, issuer).map_err(&failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
