//! Compiles the contracts without protoc.

use std::path::PathBuf;

use prost::Message as _;
use prost_types::field_descriptor_proto::Label;

const FILES: [&str; 12] = [
    "muster/feed/v1/feed.proto",
    "muster/filter/v1/filter.proto",
    "muster/identity/v1/admin.proto",
    "muster/identity/v1/audit.proto",
    "muster/identity/v1/organisation.proto",
    "muster/identity/v1/provisioning_log.proto",
    "muster/identity/v1/session.proto",
    "muster/identity/v1/user.proto",
    "muster/identity/v1/import.proto",
    "muster/identity/v1/report.proto",
    "muster/group/v1/group.proto",
    "muster/approver/v1/approver.proto",
];

/// The messages that the identity service stores as documents.
const DOCUMENTS: [&str; 5] = ["User", "Name", "MultiValue", "Address", "Enterprise"];

/// What the service computes of a user: columns, never part of the document.
const USER_OUTPUT_ONLY: [&str; 10] = [
    "id",
    "organisation_id",
    "revision",
    "create_time",
    "update_time",
    "origin",
    "content_region",
    "effective_locale",
    "primary_email",
    "released",
];

fn main() {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"]).expect("the contracts compile");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())
        .expect("OUT_DIR is writable");

    let mut builder = tonic_prost_build::configure().build_transport(false);
    let user = descriptors
        .file
        .iter()
        .find(|file| file.name() == "muster/identity/v1/user.proto")
        .expect("user.proto is in FILES");
    for message in user.message_type.iter().filter(|m| DOCUMENTS.contains(&m.name())) {
        let path = format!(".muster.identity.v1.{}", message.name());
        builder = builder
            .type_attribute(&path, "#[derive(serde::Serialize, serde::Deserialize)]")
            .type_attribute(&path, "#[serde(default)]");
        for field in &message.field {
            let attribute = if message.name() == "User" && USER_OUTPUT_ONLY.contains(&field.name())
            {
                "#[serde(skip)]"
            } else if field.label() == Label::Repeated {
                "#[serde(skip_serializing_if = \"Vec::is_empty\")]"
            } else {
                "#[serde(skip_serializing_if = \"Option::is_none\")]"
            };
            builder = builder.field_attribute(format!("{path}.{}", field.name()), attribute);
        }
    }
    builder.compile_fds(descriptors).expect("the generated code can be written");
}
