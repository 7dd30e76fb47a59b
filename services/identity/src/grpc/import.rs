//! `ImportService`, and the work that goes on after it has answered.

use muster_proto::identity::v1::import_service_server::ImportService;
use muster_proto::identity::v1::{
    CheckImportRequest, CheckImportResponse, CreateImportRequest, GetImportRequest, Import,
    ImportProblem, StartImportRequest,
};
use muster_runtime::clock;
use muster_runtime::feed::Actor;
use muster_runtime::id::OrganisationId;
use sqlx::PgConnection;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{actor, organisation_id};
use crate::people_file::{Entry, LARGEST, PeopleFile, Problem};
use crate::store::import::{self as store, Which};
use crate::store::organisation;
use crate::store::user::bulk::{self, Seen};
use crate::{Error, Identity};

/// How many rows are looked at and written at once.
const BATCH: usize = 500;
/// How many problems are told.
const MOST_PROBLEMS: usize = 1_000;

#[tonic::async_trait]
impl ImportService for Identity {
    async fn create_import(
        &self,
        request: Request<CreateImportRequest>,
    ) -> Result<Response<Import>, Status> {
        let CreateImportRequest { organisation_id: id, file } = request.into_inner();
        let organisation = organisation_id(&id)?;
        if file.len() > LARGEST {
            let description = format!("is larger than {} MiB", LARGEST / (1024 * 1024));
            return Err(Error::Invalid { field: "file", description }.into());
        }
        let which = Which { organisation, import: Uuid::now_v7() };
        let now = clock::now();
        let import = self
            .database
            .write(organisation, move |c| {
                Box::pin(async move {
                    store::create(c, which, file, now).await?;
                    store::get(c, which, now).await
                })
            })
            .await?;
        Ok(Response::new(import))
    }

    async fn get_import(
        &self,
        request: Request<GetImportRequest>,
    ) -> Result<Response<Import>, Status> {
        let GetImportRequest { organisation_id, id } = request.into_inner();
        Ok(Response::new(self.import(which(&organisation_id, &id)?).await?))
    }

    async fn check_import(
        &self,
        request: Request<CheckImportRequest>,
    ) -> Result<Response<CheckImportResponse>, Status> {
        let CheckImportRequest { organisation_id, id } = request.into_inner();
        Ok(Response::new(self.check(which(&organisation_id, &id)?).await?))
    }

    async fn start_import(
        &self,
        request: Request<StartImportRequest>,
    ) -> Result<Response<Import>, Status> {
        let StartImportRequest { organisation_id, id, actor: by } = request.into_inner();
        let (which, actor, run) = (which(&organisation_id, &id)?, actor(by)?, Uuid::new_v4());
        self.import(which).await?;
        let started = self
            .database
            .write(which.organisation, move |c| Box::pin(store::start(c, which, run, clock::now())))
            .await
            .map_err(Error::Database)?;
        if !started {
            return Err(Error::Started.into());
        }
        let this = self.clone();
        drop(self.life.spawn(async move { this.run(which, run, actor).await }));
        Ok(Response::new(self.import(which).await?))
    }
}

fn which(organisation: &str, import: &str) -> Result<Which, Error> {
    Ok(Which {
        organisation: organisation_id(organisation)?,
        import: import.parse().map_err(|_| Error::NotFound("import"))?,
    })
}

impl Identity {
    async fn import(&self, which: Which) -> Result<Import, Error> {
        self.database
            .read(which.organisation, move |c| Box::pin(store::get(c, which, clock::now())))
            .await
    }

    /// What an import would do, and what is wrong.
    async fn check(&self, which: Which) -> Result<CheckImportResponse, Error> {
        self.database
            .read(which.organisation, move |c| {
                Box::pin(async move {
                    let file = store::file(c, which, clock::now()).await?;
                    checked(c, which.organisation, &file).await
                })
            })
            .await
    }

    /// Imports a file, all of it or nothing, and notes what became of it.
    async fn run(self, which: Which, run: Uuid, actor: Actor) {
        let failure = match self.write_all(which, run, actor).await {
            Ok(()) => {
                self.feed.wake(which.organisation);
                return;
            }
            Err(Error::Invalid { description, .. }) => description,
            Err(Error::Database(error)) => {
                drop(muster_runtime::grpc::database_status(&error));
                "The database failed. Start the import again.".to_owned()
            }
            Err(_) => "Others were changing the same people. Start the import again.".to_owned(),
        };
        let noted = self
            .database
            .write(which.organisation, move |c| Box::pin(store::fail(c, which, run, failure)))
            .await;
        if let Err(error) = noted {
            // It is taken for interrupted in a minute.
            drop(muster_runtime::grpc::database_status(&error));
        }
    }

    async fn write_all(&self, which: Which, run: Uuid, actor: Actor) -> Result<(), Error> {
        let check = self.check(which).await?;
        if let Some(problem) = check.problems.first() {
            return Err(wrong(problem.line.unsigned_abs(), &problem.description));
        }
        let this = self.clone();
        self.database
            .write(which.organisation, move |c| {
                Box::pin(async move { this.write_in(c, which, run, &actor, check.row_count).await })
            })
            .await
    }

    /// The one transaction of an import. The feed is locked at its end only.
    async fn write_in(
        &self,
        connection: &mut PgConnection,
        which: Which,
        run: Uuid,
        actor: &Actor,
        total: i64,
    ) -> Result<(), Error> {
        let now = clock::now();
        let bytes = store::file(connection, which, now).await?;
        let (fields, locale) = settings(connection, which.organisation).await?;
        let file = PeopleFile::open(&bytes, &fields).map_err(|p| wrong(p.line, &p.description))?;
        let (mut seen, mut entries) = (Seen::default(), file.entries());
        let (mut created, mut updated, mut done) = (0, 0, 0);
        loop {
            let batch: Vec<Entry> = entries
                .by_ref()
                .take(BATCH)
                .collect::<Result<_, _>>()
                .map_err(|p| wrong(p.line, &p.description))?;
            if batch.is_empty() {
                break;
            }
            let organisation = which.organisation;
            let plan =
                bulk::plan(connection, organisation, &batch, &mut seen, &locale, now, true).await?;
            if let Some(problem) = plan.problems.first() {
                return Err(wrong(problem.line, &problem.description));
            }
            let changes = bulk::write(connection, organisation, &plan.planned).await?;
            store::keep_changes(connection, which, created + updated, &changes).await?;
            created += plan.created();
            updated += plan.updated();
            done += i64::try_from(batch.len()).unwrap_or_default();
            self.note_progress(which, run, (done, total)).await;
        }
        store::finish(connection, which, run, (created, updated), actor, now).await
    }

    /// Tells how far it is, beside the import's transaction. Nothing depends on it.
    async fn note_progress(&self, which: Which, run: Uuid, progress: (i64, i64)) {
        let noted = self
            .database
            .write(which.organisation, move |c| {
                Box::pin(store::progress(c, which, run, progress, clock::now()))
            })
            .await;
        if let Err(error) = noted {
            drop(muster_runtime::grpc::database_status(&error));
        }
    }
}

fn wrong(line: u64, description: &str) -> Error {
    Error::Invalid { field: "file", description: format!("Line {line}: {description}") }
}

/// What the organisation calls its custom fields, and its default locale.
async fn settings(
    connection: &mut PgConnection,
    organisation: OrganisationId,
) -> Result<([String; 3], String), Error> {
    let found = organisation::get(connection, organisation).await?;
    let fields = [found.custom_field_1_name, found.custom_field_2_name, found.custom_field_3_name];
    Ok((fields, found.default_locale))
}

async fn checked(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    bytes: &[u8],
) -> Result<CheckImportResponse, Error> {
    let (fields, locale) = settings(connection, organisation).await?;
    let file = match PeopleFile::open(bytes, &fields) {
        Ok(file) => file,
        Err(problem) => {
            return Ok(CheckImportResponse {
                problems: vec![told(problem)],
                problem_count: 1,
                ..CheckImportResponse::default()
            });
        }
    };
    let mut check = CheckImportResponse {
        row_count: i64::try_from(file.row_count).unwrap_or(i64::MAX),
        columns: file.columns(true),
        unused_columns: file.columns(false),
        ..CheckImportResponse::default()
    };
    let (mut seen, mut rows) = (Seen::default(), file.entries());
    let (now, mut problems) = (clock::now(), Vec::new());
    loop {
        let (mut entries, mut read) = (Vec::new(), 0);
        for row in rows.by_ref().take(BATCH) {
            read += 1;
            match row {
                Ok(entry) => entries.push(entry),
                Err(problem) => problems.push(problem),
            }
        }
        if read == 0 {
            break;
        }
        let plan =
            bulk::plan(connection, organisation, &entries, &mut seen, &locale, now, false).await?;
        check.create_count += plan.created();
        check.update_count += plan.updated();
        check.unchanged_count += plan.unchanged;
        problems.extend(plan.problems);
        check.problem_count += i64::try_from(problems.len()).unwrap_or_default();
        let room = MOST_PROBLEMS - check.problems.len();
        check.problems.extend(problems.drain(..).take(room).map(told));
    }
    check.problems.sort_by_key(|problem| problem.line);
    Ok(check)
}

fn told(problem: Problem) -> ImportProblem {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    ImportProblem {
        line: number(problem.line),
        column: number(problem.column),
        description: problem.description,
    }
}
