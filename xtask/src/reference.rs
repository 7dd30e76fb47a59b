//! The reference of the gRPC services in `docs/grpc.md`, from the contracts and their comments.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, ensure};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

use crate::root;

/// Where the part begins that is generated, to the end of the page.
const MARK: &str =
    "<!-- From here on written by `cargo xtask docs`, from the comments in proto/. -->\n";

/// The contracts, in the order of the reference.
const FILES: [&str; 12] = [
    "muster/identity/v1/user.proto",
    "muster/group/v1/group.proto",
    "muster/approver/v1/approver.proto",
    "muster/identity/v1/organisation.proto",
    "muster/identity/v1/admin.proto",
    "muster/identity/v1/audit.proto",
    "muster/identity/v1/session.proto",
    "muster/identity/v1/provisioning_log.proto",
    "muster/identity/v1/import.proto",
    "muster/identity/v1/report.proto",
    "muster/feed/v1/feed.proto",
    "muster/filter/v1/filter.proto",
];

/// Writes the reference anew.
pub(crate) fn write() -> anyhow::Result<()> {
    fs::write(root().join("docs/grpc.md"), page()?).context("docs/grpc.md cannot be written")
}

/// Fails where the reference is not what the contracts are now.
pub(crate) fn check() -> anyhow::Result<()> {
    let fresh = page()? == fs::read_to_string(root().join("docs/grpc.md"))?;
    ensure!(fresh, "docs/grpc.md is not up to date: run `cargo xtask docs` and commit it");
    Ok(())
}

/// The page with its reference as it should be.
fn page() -> anyhow::Result<String> {
    let page = fs::read_to_string(root().join("docs/grpc.md"))?;
    let by_hand = page.split(MARK).next().unwrap_or_default().trim_end();
    let set = protox::compile(FILES, [root().join("proto/proto")])?;
    let mut text = format!("{by_hand}\n\n{MARK}\n## Reference\n");
    for name in FILES {
        let file = set.file.iter().find(|file| file.name() == name);
        reference(file.with_context(|| format!("{name} is missing"))?, &mut text)?;
    }
    Ok(text)
}

/// The comments of a file, by the path of what they stand before.
struct Comments(HashMap<Vec<i32>, String>);

impl Comments {
    fn of(file: &FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let comments = locations.filter_map(|location| {
            let comment = location.leading_comments.as_deref()?;
            let words: Vec<&str> = comment.split_whitespace().collect();
            Some((location.path.clone(), words.join(" ")))
        });
        Self(comments.collect())
    }

    fn at(&self, path: &[i32]) -> &str {
        self.0.get(path).map_or("", String::as_str)
    }
}

// The numbers of fields in descriptor.proto, of which paths are made.
const MESSAGES: i32 = 4;
const ENUMS: i32 = 5;
const SERVICES: i32 = 6;
const OF_MESSAGE_FIELDS: i32 = 2;
const OF_SERVICE_METHODS: i32 = 2;
const OF_ENUM_VALUES: i32 = 2;

fn reference(file: &FileDescriptorProto, text: &mut String) -> anyhow::Result<()> {
    let comments = Comments::of(file);
    for (s, service) in (0..).zip(&file.service) {
        writeln!(text, "\n### {}.{}\n", file.package(), service.name())?;
        writeln!(text, "{}\n\n| method | |\n|---|---|", comments.at(&[SERVICES, s]))?;
        for (m, method) in (0..).zip(&service.method) {
            let what = cell(comments.at(&[SERVICES, s, OF_SERVICE_METHODS, m]));
            let stream = if method.server_streaming() { "stream of " } else { "" };
            let (input, output) = (last(method.input_type()), last(method.output_type()));
            writeln!(text, "| `{}`({input}) → {stream}{output} | {what} |", method.name())?;
        }
    }
    if file.service.is_empty() {
        writeln!(text, "\n### {}", file.package())?;
    }
    for (m, message) in (0..).zip(&file.message_type) {
        fields(message, &comments, &[MESSAGES, m], text)?;
    }
    for (e, enumeration) in (0..).zip(&file.enum_type) {
        let what = comments.at(&[ENUMS, e]);
        writeln!(text, "\n**{}** — {what}\n\n| value | |\n|---|---|", enumeration.name())?;
        for (v, value) in (0..).zip(&enumeration.value) {
            let what = cell(comments.at(&[ENUMS, e, OF_ENUM_VALUES, v]));
            writeln!(text, "| `{}` | {what} |", value.name())?;
        }
    }
    Ok(())
}

fn fields(
    message: &DescriptorProto,
    comments: &Comments,
    path: &[i32],
    text: &mut String,
) -> anyhow::Result<()> {
    let what = comments.at(path);
    // What a method's comment says need not be said again.
    let what = if what.starts_with("See `") { String::new() } else { format!(" — {what}") };
    writeln!(text, "\n**{}**{what}", message.name())?;
    if !message.field.is_empty() {
        writeln!(text, "\n| field | type | |\n|---|---|---|")?;
    }
    for (f, field) in (0..).zip(&message.field) {
        let mut at = path.to_vec();
        at.extend([OF_MESSAGE_FIELDS, f]);
        let what = cell(comments.at(&at));
        writeln!(text, "| `{}` | {} | {what} |", field.name(), kind(field, message))?;
    }
    Ok(())
}

fn kind(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let name = match field.r#type() {
        Type::Message | Type::Enum => last(field.type_name()).to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    if field.label() == Label::Repeated {
        return format!("repeated {name}");
    }
    if field.proto3_optional() {
        return format!("optional {name}");
    }
    match field.oneof_index.and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?)) {
        Some(oneof) => format!("{name}, one of `{}`", oneof.name()),
        None => name,
    }
}

/// The last part of a full name.
fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// A comment in a table.
fn cell(comment: &str) -> String {
    comment.replace('|', "\\|")
}
