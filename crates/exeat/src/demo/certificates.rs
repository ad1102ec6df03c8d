//! The demo's throw-away certificate authority and the listener's certificate, made anew at each start.
//! The authority's key is dropped as soon as it has signed the one certificate.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("could not make the demo's certificates")]
    Make(#[source] rcgen::Error),
    #[error("could not write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

/// Where the files are.
#[derive(Debug)]
pub(super) struct Certificates {
    pub(super) authority: PathBuf,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// Writes `ca.crt` for clients, `server.crt` and `server.key` for the listener.
pub(super) fn make(folder: &Path, host: &str) -> Result<Certificates, CertificateError> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "exeat demo authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate().map_err(CertificateError::Make)?;
    let authority = CertifiedIssuer::self_signed(authority, authority_key).map_err(CertificateError::Make)?;

    let mut server = CertificateParams::new(vec![host.to_owned()]).map_err(CertificateError::Make)?;
    server.distinguished_name.push(DnType::CommonName, host);
    let server_key = KeyPair::generate().map_err(CertificateError::Make)?;
    let server = server.signed_by(&server_key, &authority).map_err(CertificateError::Make)?;

    let files = Certificates {
        authority: folder.join("ca.crt"),
        cert: folder.join("server.crt"),
        key: folder.join("server.key"),
    };
    write(&files.authority, &authority.pem())?;
    // psql may run as another user than the demo; a certificate authority's certificate is public.
    open_to_read(&files.authority)?;
    write(&files.cert, &server.pem())?;
    write(&files.key, &server_key.serialize_pem())?;
    Ok(files)
}

fn write(path: &Path, text: &str) -> Result<(), CertificateError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|source| CertificateError::Write { path: path.to_owned(), source })
}

fn open_to_read(path: &Path) -> Result<(), CertificateError> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
        .map_err(|source| CertificateError::Write { path: path.to_owned(), source })
}
