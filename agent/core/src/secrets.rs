//! What a process is given of Secrets: whether all of it is here, and which words it becomes.
//!
//! Guarantee: no message says anything of a value; a process is not started with less, or with an older Secret, than its
//! template asks for.

use std::collections::BTreeMap;

use ostler_schemas::sealing::{Hidden, PublicKey};
use ostler_schemas::spec::{Credential, ProcessTemplate, SecretKeyRef};
use ostler_schemas::v1::secret::{SecretEntry, SecretsDocument};
use ostler_schemas::{Name, Namespace};

/// The values that a process is given, by Secret and name. One that is optional and not there is not in it.
pub type Opened = BTreeMap<(Name, String), Hidden>;

/// The entry of a Secret.
#[must_use]
pub fn entry<'a>(
    document: &'a SecretsDocument,
    namespace: &Namespace,
    name: &Name,
) -> Option<&'a SecretEntry> {
    document.entries.iter().find(|entry| entry.ns == *namespace && entry.name == *name)
}

/// The first Secret that a process waits for, in words; none when all are here. `keys` are those that this node opens.
#[must_use]
pub fn unmet(
    template: &ProcessTemplate,
    namespace: &Namespace,
    document: Option<&SecretsDocument>,
    keys: &[PublicKey],
) -> Option<String> {
    template.secret_refs().find_map(|secret| {
        let found = document.and_then(|document| entry(document, namespace, &secret.name));
        let why = unmet_one(template, secret, found, keys)?;
        Some(format!("needs secret/{}{why}", secret.name))
    })
}

fn unmet_one(
    template: &ProcessTemplate,
    secret: &SecretKeyRef,
    found: Option<&SecretEntry>,
    keys: &[PublicKey],
) -> Option<String> {
    let not_yet = || Some(", which has not come to this node yet".to_owned());
    let Some(found) = found else { return not_yet() };
    let wanted = template.secret_versions.get(&secret.name);
    let Some(of) = found.of else {
        return (!secret.optional).then(|| ", which does not exist".to_owned());
    };
    if let Some(wanted) = wanted.filter(|wanted| !of.serves(wanted)) {
        return Some(format!(" version {}, here is {}", wanted.v, of.v));
    }
    if !found.keys.contains(&secret.key) {
        return (!secret.optional).then(|| format!(", which has no value {:?}", secret.key));
    }
    match (&found.sealed, &found.trouble) {
        (Some(sealed), _) if keys.contains(&sealed.to) => None,
        (Some(_), _) => Some(", which is sealed to another key than this node's".to_owned()),
        (None, Some(trouble)) => Some(format!(": {trouble}")),
        (None, None) => not_yet(),
    }
}

/// A value that a variable can have, as text.
///
/// # Errors
/// Why it can be none.
pub fn text<'a>(opened: &'a Opened, secret: &SecretKeyRef) -> Result<Option<&'a str>, String> {
    let Some(value) = opened.get(&(secret.name.clone(), secret.key.clone())) else { return Ok(None) };
    match std::str::from_utf8(value.reveal()) {
        Ok(text) if !text.contains('\0') => Ok(Some(text)),
        Ok(_) | Err(_) => Err(format!(
            "value {:?} of secret/{} is no text that a variable can have: use credentials",
            secret.key, secret.name
        )),
    }
}

/// A folder of credentials, to be made before a start. The folder of one incarnation never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFolder {
    /// Where.
    pub path: String,
    /// The files in it.
    pub files: Vec<(String, Hidden)>,
}

impl CredentialFolder {
    /// With the credentials that are there.
    #[must_use]
    pub fn of(path: String, credentials: &[Credential], opened: &Opened) -> Self {
        let file = |credential: &Credential| {
            let secret = &credential.secret_key_ref;
            let value = opened.get(&(secret.name.clone(), secret.key.clone()))?;
            Some((credential.name.clone(), value.clone()))
        };
        Self { path, files: credentials.iter().filter_map(file).collect() }
    }
}

#[cfg(test)]
mod tests {
    use ostler_schemas::sealing::Sealed;
    use ostler_schemas::v1::secret::SecretVersion;
    use ostler_schemas::{Uid, Version};

    use super::*;

    const KEY: PublicKey = PublicKey::from_bytes([1; 32]);

    fn template(key: &str, optional: bool) -> ProcessTemplate {
        let secret_key_ref =
            SecretKeyRef { name: "db".parse().expect("a name"), key: key.to_owned(), optional };
        ProcessTemplate {
            credentials: vec![Credential { name: "x".to_owned(), secret_key_ref }],
            ..ProcessTemplate::of(vec!["/bin/x".to_owned()])
        }
    }

    fn document(of: Option<u64>, keys: &[&str]) -> SecretsDocument {
        let version = |v| SecretVersion { u: Uid::from_bytes([1; 16]), v: Version(v) };
        let entry = SecretEntry {
            ns: Namespace::default_namespace(),
            name: "db".parse().expect("a name"),
            of: of.map(version),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            sealed: of.filter(|_| !keys.is_empty()).map(|_| Sealed { to: KEY, bytes: vec![1] }),
            trouble: None,
        };
        SecretsDocument { entries: vec![entry], ..SecretsDocument::default() }
    }

    fn check(template: &ProcessTemplate, document: Option<&SecretsDocument>) -> Option<String> {
        unmet(template, &Namespace::default_namespace(), document, &[KEY])
    }

    #[test]
    fn what_is_missing_is_named_and_what_is_optional_is_not_waited_for() {
        let (must, may) = (template("password", false), template("password", true));
        let says = |document: &SecretsDocument| (check(&must, Some(document)), check(&may, Some(document)));
        let not_yet = Some("needs secret/db, which has not come to this node yet".to_owned());
        assert_eq!(check(&may, None), not_yet, "optional is what does not exist, not what has not come");
        assert_eq!(says(&SecretsDocument::default()), (not_yet.clone(), not_yet));
        let none = Some("needs secret/db, which does not exist".to_owned());
        assert_eq!(says(&document(None, &[])), (none, None));
        let no_value = Some("needs secret/db, which has no value \"password\"".to_owned());
        assert_eq!(says(&document(Some(1), &["user"])), (no_value, None));
        assert_eq!(says(&document(Some(1), &["password"])), (None, None));
        let other =
            unmet(&must, &Namespace::default_namespace(), Some(&document(Some(1), &["password"])), &[]);
        assert!(other.is_some_and(|why| why.contains("another key")));
    }

    #[test]
    fn an_older_secret_than_asked_for_is_not_used() {
        let mut template = template("password", false);
        let wanted = SecretVersion { u: Uid::from_bytes([1; 16]), v: Version(3) };
        template.secret_versions.insert("db".parse().expect("a name"), wanted);
        let older = check(&template, Some(&document(Some(2), &["password"])));
        assert_eq!(older.as_deref(), Some("needs secret/db version 3, here is 2"));
        assert_eq!(check(&template, Some(&document(Some(4), &["password"]))), None);
    }

    #[test]
    fn bytes_that_are_no_text_are_for_files_only() {
        let secret = template("password", false).credentials[0].secret_key_ref.clone();
        let opened = |bytes: &[u8]| {
            Opened::from([((secret.name.clone(), secret.key.clone()), Hidden::new(bytes.to_vec()))])
        };
        assert_eq!(text(&opened(b"horse"), &secret), Ok(Some("horse")));
        assert_eq!(text(&Opened::new(), &secret), Ok(None));
        for bad in [&b"a\0b"[..], &[0xff][..]] {
            let why = text(&opened(bad), &secret).expect_err("is no text");
            assert!(why.contains("use credentials"), "{why}");
        }
    }
}
