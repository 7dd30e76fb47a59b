//! What no sound caller sends over gRPC: every method, with garbage in every field.

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use muster_runtime::transport::Transport;
use prost_reflect::prost::Message as _;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor,
    ReflectMessage as _, Value,
};
use serde_json::json;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Service as _, ServiceExt as _};

use crate::check::nothing_differs;
use crate::support::system::{Tenant, together};

/// What strings are filled with, but for ids that are to be right.
const STRINGS: [&str; 8] = [
    "",
    "x",
    "\0",
    "a\0b",
    "not-a-uuid",
    "'; DROP TABLE identity.users; --",
    "\u{202e}\u{200b}\u{feff}💥",
    "00000000-0000-0000-0000-000000000000",
];

/// A message with everything set: strings to `text`, numbers to `number`.
fn filled(message: MessageDescriptor, text: &str, number: i64, depth: usize) -> DynamicMessage {
    let mut filled = DynamicMessage::new(message.clone());
    for field in message.fields() {
        if depth == 0 && matches!(field.kind(), Kind::Message(_)) {
            continue;
        }
        let value = value(&field, text, number, depth);
        let value = match field.cardinality() {
            Cardinality::Repeated if field.is_map() => continue,
            Cardinality::Repeated => Value::List(vec![value.clone(), value]),
            _ => value,
        };
        filled.set_field(&field, value);
    }
    filled
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "garbage is garbage")]
#[expect(clippy::cast_precision_loss, reason = "garbage is garbage")]
fn value(field: &FieldDescriptor, text: &str, number: i64, depth: usize) -> Value {
    match field.kind() {
        Kind::Bool => Value::Bool(number % 2 == 0),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number as u64),
        Kind::Float => Value::F32(number as f32),
        Kind::Double => Value::F64(number as f64),
        Kind::String => Value::String(text.to_owned()),
        Kind::Bytes => Value::Bytes(Bytes::copy_from_slice(text.as_bytes())),
        Kind::Enum(_) => Value::EnumNumber((number % 100) as i32),
        Kind::Message(inner) => Value::Message(filled(inner, text, number, depth - 1)),
    }
}

/// Puts the organisation into every field that names one, so that what is behind it is reached.
fn within(message: &mut DynamicMessage, organisation: &str) {
    let fields: Vec<FieldDescriptor> = message.descriptor().fields().collect();
    for field in fields {
        if field.name() == "organisation_id" && !field.is_list() {
            message.set_field(&field, Value::String(organisation.to_owned()));
        } else if message.has_field(&field) {
            match message.get_field_mut(&field) {
                Value::Message(inner) => within(inner, organisation),
                Value::List(list) => {
                    for value in list {
                        if let Value::Message(inner) = value {
                            within(inner, organisation);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

fn framed(message: &[u8]) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap());
    body.extend_from_slice(message);
    body.freeze()
}

/// Calls a method with these bytes; what came of it.
async fn called(transport: &Transport, method: &str, body: Bytes) -> Status {
    let mut transport = transport.clone();
    let request = http::Request::post(format!("/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "3S")
        .body(Body::new(Full::new(body).map_err(|never| match never {})))
        .unwrap();
    let response = match transport.ready().await.unwrap().call(request).await {
        Ok(response) => response,
        Err(error) => return Status::from_error(error),
    };
    if let Some(status) = Status::from_header_map(response.headers()) {
        return status;
    }
    // A stream says first whether it is one; more of it is not waited for.
    let is_watch = method.ends_with("/WatchChanges");
    if is_watch {
        return Status::ok("");
    }
    match response.into_body().collect().await {
        Ok(body) => {
            let trailers = body.trailers().and_then(Status::from_header_map);
            trailers.unwrap_or_else(|| Status::ok(""))
        }
        Err(status) => status,
    }
}

fn is_proper(code: Code) -> bool {
    !matches!(code, Code::Internal | Code::Unknown | Code::DataLoss | Code::Unavailable)
}

#[tokio::test]
async fn garbage_in_every_field_of_every_method_gets_a_proper_status() {
    let system = together();
    let tenant: Tenant = system.tenant().await;
    let ann = tenant.client.post("/Users", &json!({"userName": "ann"})).await.unwrap();
    assert_eq!(ann.status, 201);
    let contracts = DescriptorPool::decode(muster_proto::FILE_DESCRIPTOR_SET).unwrap();
    let transport = system.identity();
    let long = "x".repeat(10_000);
    let mut improper = Vec::new();
    let mut calls = 0;
    for service in contracts.services() {
        for method in service.methods() {
            let name = format!("{}/{}", service.full_name(), method.name());
            let mut bodies = vec![
                ("nothing", Bytes::new()),
                ("half a frame", Bytes::from_static(&[0, 0, 0])),
                ("a frame that is too long", Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1])),
                ("a compressed frame", Bytes::from_static(&[1, 0, 0, 0, 0])),
                ("an empty message", framed(&[])),
                ("bytes", framed(&[0xff; 64])),
                ("text that is no UTF-8", framed(&[0x0a, 2, 0xc3, 0x28])),
                ("a message in a message, 1,000 deep", framed(&nested(1_000))),
            ];
            for text in STRINGS.iter().copied().chain([long.as_str()]) {
                for number in [-1, 0, i64::MAX, i64::MIN] {
                    let mut message = filled(method.input(), text, number, 3);
                    bodies.push(("garbage", framed(&message.encode_to_vec())));
                    within(&mut message, &tenant.id);
                    bodies.push(("garbage of ours", framed(&message.encode_to_vec())));
                }
            }
            for (what, body) in bodies {
                let begins = body.slice(..body.len().min(64));
                let status = called(&transport, &name, body).await;
                calls += 1;
                let broken =
                    matches!(what, "nothing" | "half a frame" | "a frame that is too long")
                        || what.starts_with("a compressed")
                        || what == "bytes"
                        || what.starts_with("text that")
                        || what.starts_with("a message in");
                // What is no message at all is tonic's to refuse, as INTERNAL or UNIMPLEMENTED.
                if !is_proper(status.code()) && !broken {
                    improper.push(format!(
                        "{name}, {what} {begins:?}: {:?} {}",
                        status.code(),
                        status.message()
                    ));
                }
            }
        }
    }
    println!("{calls} calls");
    assert!(
        improper.is_empty(),
        "{} of {calls}: {:#?}",
        improper.len(),
        &improper[..improper.len().min(60)]
    );
    assert!(!system.logs().contains("panicked"), "{}", system.logs());
    let listed = tenant.client.get("/Users?filter=userName%20eq%20%22ann%22").await.unwrap();
    assert_eq!(listed.at("/totalResults"), 1, "{}", listed.text);
    nothing_differs(system, &tenant.id).await;
}

/// A length-delimited field 1 within field 1 and so on.
fn nested(depth: usize) -> Vec<u8> {
    let mut message = Vec::new();
    for _ in 0..depth {
        let mut outer = vec![0x0a];
        prost_reflect::prost::encoding::encode_varint(message.len() as u64, &mut outer);
        outer.extend_from_slice(&message);
        message = outer;
    }
    message
}
