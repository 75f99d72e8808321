//! Reading manifests: YAML with any number of documents, lists, and errors that say where and what would be right.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;
use vswitch_model::Invalid;

use super::{Key, Kind, Object, meta};

mod faults;
mod foreign;
mod plain;

/// Why a manifest was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}{place}: {problem}", place = Place(self))]
pub struct ManifestError {
    /// The file, or what else it was read from.
    pub source_name: String,
    /// Which document of it, from 1; 0 when it is not about one document.
    pub document: usize,
    /// `NetworkPolicy media/relay`, as far as known.
    pub object: String,
    /// Path of the field, from the object inwards; empty when it is not about one field.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

struct Place<'a>(&'a ManifestError);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.document > 0 {
            write!(f, ", document {}", self.0.document)?;
        }
        if !self.0.object.is_empty() {
            write!(f, ", {}", self.0.object)?;
        }
        if !self.0.field.is_empty() {
            write!(f, ": {}", self.0.field)?;
        }
        Ok(())
    }
}

impl ManifestError {
    pub(super) fn syntax(source_name: &str, problem: &impl ToString) -> Self {
        Self {
            source_name: source_name.to_owned(),
            document: 0,
            object: String::new(),
            field: String::new(),
            problem: problem.to_string(),
        }
    }

    /// What is wrong with an object that could be read.
    #[must_use]
    pub fn about(source_name: &str, document: usize, object: &Object, invalid: Invalid) -> Self {
        let Key { kind, namespace, name } = object.key();
        let slash = if namespace.is_empty() { "" } else { "/" };
        let (object, Invalid { field, problem }) = (format!("{kind} {namespace}{slash}{name}"), invalid);
        Self { source_name: source_name.to_owned(), document, object, field, problem }
    }
}

/// All that is wrong with what was to be read, in its order; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestErrors(pub Vec<ManifestError>);

/// How many of them are told.
const TOLD: usize = 50;

impl std::error::Error for ManifestErrors {}

impl std::fmt::Display for ManifestErrors {
    /// One a line; of a great many the first.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, error) in self.0.iter().take(TOLD).enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{error}")?;
        }
        match self.0.len().saturating_sub(TOLD) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// One object of a manifest, and which document it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Number of the document, from 1.
    pub number: usize,
    /// The object.
    pub object: Object,
}

/// All objects of `text`, which came from `source_name`. Objects without a namespace get `namespace` where their kind
/// needs one. Nothing is returned unless everything is right; no object may appear twice. The error is the first.
pub fn parse(source_name: &str, namespace: &str, text: &str) -> Result<Vec<Document>, ManifestError> {
    let mut errors = Vec::new();
    let documents = documents(source_name, namespace, text, None, &mut errors);
    errors.into_iter().next().map_or(Ok(documents), Err)
}

/// The objects that can be read; what is wrong with the others comes to `errors`.
fn documents(
    source_name: &str,
    namespace: &str,
    text: &str,
    mut notes: Option<&mut Vec<String>>,
    errors: &mut Vec<ManifestError>,
) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut seen = BTreeMap::new();
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let number = index + 1;
        let syntax = |problem: &dyn std::fmt::Display| ManifestError {
            document: number,
            ..ManifestError::syntax(source_name, &problem)
        };
        // By way of YAML's own value: it refuses a key that appears twice, where JSON's keeps the last.
        let yaml = match serde_yaml_ng::Value::deserialize(document) {
            Ok(yaml) => yaml,
            // Where the next document begins cannot be told.
            Err(error) => {
                errors.push(syntax(&error));
                break;
            }
        };
        if let Some(number) = not_finite(&yaml) {
            errors.push(syntax(&format!("{number} is not a number that means anything here")));
            continue;
        }
        let value = match serde_json::to_value(yaml) {
            Ok(value) => value,
            Err(error) => {
                errors.push(syntax(&error));
                continue;
            }
        };
        let value = match notes.as_deref_mut() {
            Some(notes) => foreign::left_out(value, |what| {
                notes.push(format!(
                    "{source_name}, document {number}: {what} is left out: its kind has no part in this"
                ));
            }),
            None => value,
        };
        for object in flatten(source_name, namespace, number, value, errors) {
            if let Some(first) = seen.insert(object.key(), number) {
                errors.push(syntax(&format!("{} is already in document {first}", object.key())));
            } else {
                documents.push(Document { number, object });
            }
        }
    }
    documents
}

/// A number somewhere in `value` that JSON does not have, and would take for nothing.
fn not_finite(value: &serde_yaml_ng::Value) -> Option<f64> {
    use serde_yaml_ng::Value as Yaml;
    match value {
        Yaml::Number(number) => number.as_f64().filter(|number| !number.is_finite()),
        Yaml::Sequence(items) => items.iter().find_map(not_finite),
        Yaml::Mapping(fields) => {
            fields.iter().find_map(|(key, value)| not_finite(key).or_else(|| not_finite(value)))
        }
        Yaml::Tagged(tagged) => not_finite(&tagged.value),
        Yaml::Null | Yaml::Bool(_) | Yaml::String(_) => None,
    }
}

/// An object, and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Sourced {
    /// The file, or what else it was read from.
    pub source_name: String,
    /// Which document of it, from 1.
    pub document: usize,
    /// The object.
    pub object: Object,
}

impl Sourced {
    /// What is wrong with it, beside the others.
    #[must_use]
    pub fn error(&self, invalid: Invalid) -> ManifestError {
        ManifestError::about(&self.source_name, self.document, &self.object, invalid)
    }
}

/// The objects of several texts, each with the name of what it came from; none of them twice, and none that `judge` finds
/// fault with.
pub fn parse_all<'a>(
    texts: impl IntoIterator<Item = (&'a str, &'a str)>,
    namespace: &str,
    judge: impl Fn(&Object) -> Result<(), Invalid>,
) -> Result<Vec<Object>, ManifestErrors> {
    let sourced = parse_sourced(texts, namespace, None, judge)?;
    Ok(sourced.into_iter().map(|sourced| sourced.object).collect())
}

/// The same with where each came from. Where there are `notes`, objects of kinds that have nothing to do with a switch
/// are left out and noted there; otherwise they are an error.
pub fn parse_sourced<'a>(
    texts: impl IntoIterator<Item = (&'a str, &'a str)>,
    namespace: &str,
    mut notes: Option<&mut Vec<String>>,
    judge: impl Fn(&Object) -> Result<(), Invalid>,
) -> Result<Vec<Sourced>, ManifestErrors> {
    let (mut objects, mut seen, mut errors) = (Vec::new(), BTreeMap::new(), Vec::new());
    for (source_name, text) in texts {
        let documents = documents(source_name, namespace, text, notes.as_deref_mut(), &mut errors);
        for Document { number, object } in documents {
            let sourced = Sourced { source_name: source_name.to_owned(), document: number, object };
            if let Err(invalid) = judge(&sourced.object) {
                errors.push(sourced.error(invalid));
            }
            if let Some(other) = seen.insert(sourced.object.key(), source_name) {
                errors.push(sourced.error(Invalid::new("", format!("is already in {other}"))));
            }
            objects.push(sourced);
        }
    }
    if errors.is_empty() { Ok(objects) } else { Err(ManifestErrors(errors)) }
}

/// The objects of one document: none when it is empty, several when it is a list.
fn flatten(
    source_name: &str,
    namespace: &str,
    number: usize,
    value: Value,
    errors: &mut Vec<ManifestError>,
) -> Vec<Object> {
    if value.is_null() {
        return Vec::new();
    }
    let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    let Some(items) = value.get("items").filter(|_| is_list) else {
        let object = read(source_name, namespace, number, value);
        return object.map_err(|mut found| errors.append(&mut found)).into_iter().collect();
    };
    let Value::Array(items) = items else {
        let error = ManifestError::syntax(source_name, &"a list of objects would be right");
        errors.push(ManifestError { document: number, field: "items".into(), ..error });
        return Vec::new();
    };
    let mut objects = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match read(source_name, namespace, number, item.clone()) {
            Ok(object) => objects.push(object),
            Err(found) => errors.extend(found.into_iter().map(|mut e| {
                let at = format!("items[{index}]");
                e.field = if e.field.is_empty() { at } else { format!("{at}.{}", e.field) };
                e
            })),
        }
    }
    objects
}

/// The object `value` describes, its shape and meaning checked. `namespace` is for one that names none. The error is the
/// first.
pub fn from_value(
    source_name: &str,
    namespace: &str,
    number: usize,
    value: Value,
) -> Result<Object, ManifestError> {
    let nothing = || ManifestError::syntax(source_name, &"cannot be read");
    let object = read(source_name, namespace, number, value);
    object.map_err(|errors| errors.into_iter().next().unwrap_or_else(nothing))
}

/// The same with all that is wrong.
fn read(
    source_name: &str,
    namespace: &str,
    number: usize,
    value: Value,
) -> Result<Object, Vec<ManifestError>> {
    let mut error = ManifestError::syntax(source_name, &"");
    error.document = number;
    let Value::Object(mut body) = value else {
        return Err(vec![ManifestError {
            problem: "an object with apiVersion, kind and metadata would be right".into(),
            ..error
        }]);
    };
    error.object = describe(&body);
    let fail =
        |invalid: Invalid| ManifestError { field: invalid.field, problem: invalid.problem, ..error.clone() };
    let kind = take_kind(&mut body).map_err(|invalid| vec![fail(invalid)])?;
    tidy_metadata(kind, namespace, &mut body);
    if kind.has_servers_status() {
        body.remove("status");
    }
    faults::read(kind, Value::Object(body)).map_err(|found| found.into_iter().map(fail).collect())
}

fn take_kind(body: &mut Map<String, Value>) -> Result<Kind, Invalid> {
    let mut take = |field: &str, example: &str| match body.remove(field) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Invalid::new(field, format!("{other} is not text; for instance {example}"))),
        None => Err(Invalid::new(field, format!("missing; for instance {example}"))),
    };
    let version = take("apiVersion", "networking.k8s.io/v1")?;
    let name = take("kind", "NetworkPolicy")?;
    let reads = |kind: &Kind| kind.name() == name && kind.api_versions().contains(&version.as_str());
    if let Some(kind) = Kind::ALL.iter().copied().find(reads) {
        return Ok(kind);
    }
    if let Some(reason) = not_done(&name) {
        return Err(Invalid::new("kind", reason));
    }
    let of_name: Vec<Kind> = Kind::ALL.iter().copied().filter(|kind| kind.name() == name).collect();
    // Not the agents' own: Kubernetes' Endpoints is no Endpoint of ours.
    let meant = || name.parse().ok().filter(|kind: &Kind| kind.is_applied_by_people());
    let Some(kind) = of_name.first().copied().or_else(meant) else {
        return Err(Invalid::new("kind", format!("\"{name}\" is not supported; supported are {}", kinds())));
    };
    if kind.name() != name {
        return Err(Invalid::new("kind", format!("\"{name}\" must be written {}", kind.name())));
    }
    let right = of_name.iter().flat_map(|kind| kind.api_versions()).copied().collect::<Vec<_>>().join(" or ");
    Err(Invalid::new("apiVersion", format!("\"{version}\" is not supported for {kind}; {right} is")))
}

/// The kinds that people may apply, as `kind:` has them.
fn kinds() -> String {
    let applied = Kind::ALL.iter().filter(|kind| kind.is_applied_by_people() && kind.unenforced().is_none());
    let mut names: Vec<_> = applied.map(|kind| kind.name()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// Why a kind that people know from elsewhere does not exist here.
fn not_done(kind: &str) -> Option<&'static str> {
    match kind {
        "HostEndpoint" => Some(
            "HostEndpoint is not supported: the host's own traffic does not pass through this switch, and only pods \
             have policies",
        ),
        _ => None,
    }
}

/// Drops what only a server writes, and fills the namespace in.
fn tidy_metadata(kind: Kind, namespace: &str, body: &mut Map<String, Value>) {
    if let Some(Value::Object(metadata)) = body.get_mut("metadata") {
        for field in meta::SERVER_SIDE {
            metadata.remove(*field);
        }
        if kind.is_namespaced() && metadata.get("namespace").is_none_or(Value::is_null) {
            metadata.insert("namespace".into(), namespace.into());
        }
    }
}

fn describe(body: &Map<String, Value>) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let metadata = body.get("metadata");
    let name = text(metadata.and_then(|m| m.get("name")));
    let namespace = text(metadata.and_then(|m| m.get("namespace")));
    let full_name = match (namespace, name) {
        (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
        (_, name) => name,
    };
    [text(body.get("kind")), full_name].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// What is written at a path.
fn at<'a>(body: &'a Value, path: &serde_path_to_error::Path) -> Option<&'a Value> {
    path.iter().try_fold(body, |value, segment| match segment {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } => value.get(key),
        Segment::Enum { .. } | Segment::Unknown => None,
    })
}

/// What the standard library says of an address leaves out what was written, and what would be right.
fn with_value(problem: String, path: &str, written: Option<&Value>) -> String {
    let Some(Value::String(text)) = written.filter(|_| problem.starts_with("invalid IP")) else {
        return problem;
    };
    let lower = path.to_lowercase();
    if ["cidr", "except", "nets[", "networks"].iter().any(|of_ranges| lower.contains(of_ranges)) {
        format!("\"{text}\" is no range of addresses; 10.0.0.0/8, 192.0.2.1/32 or fd00::/64 would be right")
    } else {
        format!("\"{text}\" is not an IP address; 10.0.0.1 or fd00::1 would be right")
    }
}

/// serde_json ends its messages with a position, which means nothing for a value that came from YAML.
fn without_position(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(text, _)| text).to_owned()
}
