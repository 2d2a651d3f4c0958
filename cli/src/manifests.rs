//! Manifests from files, folders and standard input, on their way to the server.
//!
//! Everything is checked here first, so a mistake is told without a server. What is sent is the tree of each document
//! with its places: findings of the server point into the user's files too.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use ostler_schemas::manifest::{
    self, Content, Document, Entry, Manifest, ManifestBody, Node, Options, Scalar, Value, detach_content,
    encode_tree, read_documents,
};
use ostler_schemas::v1::api::{INLINE_MAX, ManifestDocument, content_ref};
use ostler_schemas::{Kind, Namespace, ObjectRef};
use serde_bytes::ByteBuf;

use crate::args::change::Sources;
use crate::failure::Failure;
use crate::render::object::Contents;

/// Contents travel inside the request only while all of them are no more than this: the request is one message of at
/// most 1 MiB, and the other half is for 450 small objects.
const INLINE_TOTAL: usize = 400 << 10;

/// Checked manifests.
#[derive(Debug)]
pub struct Manifests {
    /// In order; one for each document, items of lists being documents.
    pub checked: Vec<Manifest>,
    documents: Vec<Document>,
}

/// What goes to the server: the documents, and contents that go ahead of them.
#[derive(Debug)]
pub struct Parcel {
    /// The documents.
    pub documents: Vec<ManifestDocument>,
    /// Contents to send by `blob` first.
    pub contents: Vec<Vec<u8>>,
}

/// Reads and checks.
///
/// # Errors
/// When something cannot be read, or is refused.
pub fn read(sources: &Sources, namespace: &Namespace) -> Result<Manifests, Failure> {
    let mut documents = Vec::new();
    for (name, bytes) in texts(sources)? {
        documents.extend(read_documents(Some(&name), &bytes));
    }
    // A document that holds nothing (a comment, a trailing ---) asks for nothing.
    documents.retain(|document| !(document.root.is_null() && document.problems.is_empty()));
    if documents.is_empty() {
        return Err(Failure::message("there is no manifest in what was given with -f"));
    }
    // Here and not in the check, which would leave more manifests than documents.
    let documents = manifest::expand_lists(documents);
    let options = Options { default_namespace: namespace.clone(), ..Options::default() };
    let checked = manifest::check(documents.clone(), &options).map_err(Failure::Refused)?;
    Ok(Manifests { checked, documents })
}

impl Manifests {
    /// The objects that they are of.
    #[must_use]
    pub fn objects(&self) -> Vec<ObjectRef> {
        self.checked.iter().map(object_of).collect()
    }

    /// What a ConfigFile's manifest says is in its files, by hash.
    #[must_use]
    pub fn contents_of(&self, object: &ObjectRef) -> Contents {
        let manifest = self.checked.iter().find(|m| object_of(m) == *object);
        let Some(ManifestBody::ConfigFile(file)) = manifest.map(|m| &m.body) else { return Contents::new() };
        let alone = match &file.content {
            Some(Content::Inline(bytes)) => Some(bytes),
            Some(Content::Stored(_)) | None => None,
        };
        let all = alone.into_iter().chain(&file.files);
        all.map(|bytes| (content_ref(bytes).sha256, bytes.clone())).collect()
    }

    /// The document of one object, whole, for a question about it.
    #[must_use]
    pub fn document_of(&self, object: &ObjectRef, namespace: &Namespace) -> Option<ManifestDocument> {
        let (document, _) =
            self.documents.iter().zip(&self.checked).find(|(_, manifest)| object_of(manifest) == *object)?;
        let mut document = document.clone();
        put_namespace(&mut document.root, namespace);
        let tree = ByteBuf::from(encode_tree(&document));
        Some(ManifestDocument { file: document.file, tree, content: None })
    }

    /// Whether the manifest at that place of the parcel has values that must not be stored on the way.
    #[must_use]
    pub fn is_secret(&self, index: usize) -> bool {
        self.checked.get(index).is_some_and(|manifest| manifest.kind == Kind::Secret)
    }

    /// For sending.
    #[must_use]
    pub fn parcel(&self, namespace: &Namespace) -> Parcel {
        let (mut documents, mut contents, mut inline) = (Vec::new(), Vec::new(), 0usize);
        for (document, manifest) in self.documents.iter().zip(&self.checked) {
            let mut document = document.clone();
            if !manifest.kind.is_cluster_wide() {
                put_namespace(&mut document.root, namespace);
            }
            let room = INLINE_MAX.min(INLINE_TOTAL.saturating_sub(inline));
            let ahead = detach_content(&mut document, room);
            let content = ahead.as_deref().map(content_ref);
            if content.is_none() && manifest.kind == Kind::ConfigFile {
                inline += self.contents_of(&object_of(manifest)).values().map(Vec::len).sum::<usize>();
            }
            contents.extend(ahead);
            let tree = ByteBuf::from(encode_tree(&document));
            documents.push(ManifestDocument { file: document.file.clone(), tree, content });
        }
        Parcel { documents, contents }
    }
}

fn object_of(manifest: &Manifest) -> ObjectRef {
    ObjectRef { kind: manifest.kind, namespace: manifest.namespace.clone(), name: manifest.name.clone() }
}

/// The server does not know the caller's context, so the namespace that it means is written into the document.
fn put_namespace(root: &mut Node, namespace: &Namespace) {
    let Value::Map(top) = &mut root.value else { return };
    let Some(metadata) = top.iter_mut().find(|entry| entry.key == "metadata") else { return };
    let place = metadata.place;
    let Value::Map(fields) = &mut metadata.value.value else { return };
    if fields.iter().any(|field| field.key == "namespace" && !field.value.is_null()) {
        return;
    }
    fields.retain(|field| field.key != "namespace");
    let value = Node { place, value: Value::Scalar(Scalar::quoted(namespace.to_string())) };
    fields.push(Entry { key: "namespace".to_owned(), place, value });
}

/// The texts, each with the name that findings call it by.
fn texts(sources: &Sources) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut out = Vec::new();
    let mut seen = BTreeSet::new();
    for source in &sources.files {
        if source.as_os_str() == "-" {
            if seen.insert(PathBuf::from("-")) {
                out.push(("-".to_owned(), standard_input()?));
            }
            continue;
        }
        let meta = fs::metadata(source)
            .map_err(|error| Failure::local(&format!("cannot read {}", source.display()), error))?;
        let files = if meta.is_dir() { files_in(source, sources.recursive)? } else { vec![source.clone()] };
        for file in files {
            if seen.insert(file.clone()) {
                let bytes = fs::read(&file)
                    .map_err(|error| Failure::local(&format!("cannot read {}", file.display()), error))?;
                out.push((file.display().to_string(), bytes));
            }
        }
    }
    Ok(out)
}

/// All of standard input.
///
/// # Errors
/// When it cannot be read.
pub fn standard_input() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::local("cannot read standard input", error))?;
    Ok(bytes)
}

fn files_in(folder: &Path, recursive: bool) -> Result<Vec<PathBuf>, Failure> {
    let act = || format!("cannot read folder {}", folder.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| Failure::local(&act(), error))? {
        entries.push(entry.map_err(|error| Failure::local(&act(), error))?.path());
    }
    entries.sort();
    let mut out = Vec::new();
    for path in entries {
        if path.is_dir() {
            if recursive {
                out.extend(files_in(&path, true)?);
            }
        } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
            out.push(path);
        }
    }
    Ok(out)
}
