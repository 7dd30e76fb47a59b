//! `muster watch`: prints an organisation's changes as they are committed.

use std::io::{ErrorKind, Write as _, stdout};
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use muster_proto::approver::v1::approver_service_client::ApproverServiceClient;
use muster_proto::feed::v1::{ChangeKind, ChangeMetadata, WatchStart, actor::Kind};
use muster_proto::group::v1::group_service_client::GroupServiceClient;
use muster_proto::identity::v1::user_service_client::UserServiceClient;
use muster_proto::{approver, group, identity};
use muster_runtime::grpc::max_message_bytes;
use muster_runtime::transport::Transport;
use tonic::{Code, Status};

use crate::operate::{self, Identity};

/// Print an organisation's changes as they are committed, one a line.
///
/// Each line has time, sequence, kind, subject and actor. A stream that breaks off is resumed after
/// the last change; Ctrl-C ends it and tells where to go on.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  muster watch --organisation northwind --from-start")]
pub struct WatchArgs {
    /// The organisation's slug
    #[arg(long, value_name = "SLUG")]
    pub organisation: String,
    /// Whose changes
    #[arg(long, value_enum, default_value_t = Service::Identity)]
    pub service: Service,
    /// Begin with the first change instead of the next
    #[arg(long, conflicts_with = "resume")]
    pub from_start: bool,
    /// Go on after the place that this token names
    #[arg(long, value_name = "TOKEN")]
    pub resume: Option<String>,
    /// Where the service listens, where it is not where identity does
    #[arg(long, value_name = "URL")]
    pub service_url: Option<String>,
    /// Where identity is
    #[command(flatten)]
    pub identity: Identity,
}

/// A service with a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// Users
    Identity,
    /// Groups
    Group,
    /// Users' approvers
    Approver,
}

/// A message of any of the feeds.
struct Told {
    resume_token: String,
    change: Option<Change>,
}

/// What is printed of a change.
struct Change {
    metadata: ChangeMetadata,
    kind: ChangeKind,
    subject: String,
}

/// How long to wait before a stream is opened again, at first and at most.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// Runs `muster watch`.
pub async fn run(args: WatchArgs) -> anyhow::Result<()> {
    let identity = args.identity.connect(None)?;
    let organisation_id = operate::find(&identity, args.organisation.clone()).await?;
    let transport = args.identity.connect(args.service_url.as_deref())?;
    let mut token = args.resume.clone();
    tokio::select! {
        ended = follow(&args, &transport, &organisation_id, &mut token) => ended,
        _ = tokio::signal::ctrl_c() => {
            if let Some(token) = token {
                eprintln!("Go on with --resume {token}");
            }
            Ok(())
        }
    }
}

/// Prints until nobody reads it any more, or the feed does not go on.
async fn follow(
    args: &WatchArgs,
    transport: &Transport,
    organisation_id: &str,
    token: &mut Option<String>,
) -> anyhow::Result<()> {
    let (first, most) = WAIT;
    let mut wait = first;
    loop {
        let before = token.clone();
        let status = match print(args, transport, organisation_id, token).await {
            Ok(()) => return Ok(()),
            Err(status) => status,
        };
        match status.code() {
            Code::OutOfRange => anyhow::bail!(
                "the feed does not go on from there (it is too long ago, or was restored from a \
                 back-up): begin without --resume and --from-start"
            ),
            Code::InvalidArgument | Code::NotFound | Code::Unimplemented => {
                anyhow::bail!("{}", status.message())
            }
            _ => {}
        }
        wait = if *token == before { (wait * 2).min(most) } else { first };
        if wait > first {
            eprintln!("muster: the feed broke off ({}); trying again", status.message());
        }
        tokio::time::sleep(wait).await;
    }
}

/// Prints what one stream tells; the status that it ends with, or nothing where nobody reads it.
async fn print(
    args: &WatchArgs,
    transport: &Transport,
    organisation_id: &str,
    token: &mut Option<String>,
) -> Result<(), Status> {
    let start = if args.from_start { WatchStart::Unspecified } else { WatchStart::Now };
    let tokens = token.iter().cloned().collect();
    let mut stream =
        open(args.service, transport.clone(), organisation_id.into(), tokens, start).await?;
    while let Some(told) = stream.next().await.transpose()? {
        if let Some(change) = told.change {
            match writeln!(stdout(), "{}", line(&change)) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(Status::invalid_argument(error.to_string())),
                Ok(()) => {}
            }
        }
        *token = Some(told.resume_token);
    }
    Err(Status::unavailable("the stream ended"))
}

async fn open(
    service: Service,
    transport: Transport,
    organisation_id: String,
    resume_tokens: Vec<String>,
    start: WatchStart,
) -> Result<BoxStream<'static, Result<Told, Status>>, Status> {
    let start = start.into();
    Ok(match service {
        Service::Identity => {
            let request =
                identity::v1::WatchChangesRequest { organisation_id, resume_tokens, start };
            let mut users =
                UserServiceClient::new(transport).max_decoding_message_size(max_message_bytes());
            let told = |message: identity::v1::WatchChangesResponse| Told {
                resume_token: message.resume_token,
                change: message.change.map(|change| Change {
                    kind: change.kind(),
                    metadata: change.metadata.unwrap_or_default(),
                    subject: change.user_id,
                }),
            };
            users.watch_changes(request).await?.into_inner().map(move |m| m.map(told)).boxed()
        }
        Service::Group => {
            let request = group::v1::WatchChangesRequest { organisation_id, resume_tokens, start };
            let mut groups =
                GroupServiceClient::new(transport).max_decoding_message_size(max_message_bytes());
            let told = |message: group::v1::WatchChangesResponse| Told {
                resume_token: message.resume_token,
                change: message.change.map(|change| Change {
                    kind: change.kind(),
                    metadata: change.metadata.unwrap_or_default(),
                    subject: change.group_id,
                }),
            };
            groups.watch_changes(request).await?.into_inner().map(move |m| m.map(told)).boxed()
        }
        Service::Approver => {
            let request =
                approver::v1::WatchChangesRequest { organisation_id, resume_tokens, start };
            let mut approvers = ApproverServiceClient::new(transport);
            let told = |message: approver::v1::WatchChangesResponse| Told {
                resume_token: message.resume_token,
                change: message.change.map(|change| Change {
                    // A user's approvers are never created nor deleted: they become others.
                    kind: ChangeKind::Updated,
                    metadata: change.metadata.unwrap_or_default(),
                    subject: change.user_id,
                }),
            };
            approvers.watch_changes(request).await?.into_inner().map(move |m| m.map(told)).boxed()
        }
    })
}

/// Time, sequence, kind, subject and actor.
fn line(change: &Change) -> String {
    let Change { metadata, kind, subject } = change;
    let actor = metadata.actor.clone().and_then(|actor| actor.kind);
    let actor = match actor {
        Some(Kind::ApiKeyId(id)) => format!("api-key {id}"),
        Some(Kind::AdminId(id)) => format!("admin {id}"),
        Some(Kind::Caller(name)) if !name.is_empty() => format!("caller {name}"),
        _ => "-".to_owned(),
    };
    let kind = match kind {
        ChangeKind::Created => "created",
        ChangeKind::Updated => "updated",
        ChangeKind::Deleted => "deleted",
        ChangeKind::Erased => "erased",
        ChangeKind::Unspecified => "-",
    };
    let time = operate::moment(metadata.write_time);
    format!("{time}  {:>6}  {kind:7}  {subject}  {actor}", metadata.sequence)
}

#[cfg(test)]
mod tests {
    use muster_proto::feed::v1::Actor;

    use super::*;

    #[test]
    fn a_line_tells_when_what_to_whom_and_by_whom() {
        let actor = Actor { kind: Some(Kind::ApiKeyId("0199".into())) };
        let metadata = ChangeMetadata {
            sequence: 7,
            write_time: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 5 }),
            actor: Some(actor),
            ..ChangeMetadata::default()
        };
        let change = Change { metadata, kind: ChangeKind::Deleted, subject: "0200".into() };
        assert_eq!(line(&change), "2026-09-21T14:13:20Z       7  deleted  0200  api-key 0199");
    }
}
