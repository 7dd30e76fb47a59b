//! `ReportService`.

use muster_proto::identity::v1::report_service_server::ReportService;
use muster_proto::identity::v1::{GetHeadCountsRequest, HeadCounts};
use muster_runtime::grpc::database_status;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::organisation_id;
use crate::store::report as store;
use crate::{Error, Identity};

#[tonic::async_trait]
impl ReportService for Identity {
    async fn get_head_counts(
        &self,
        request: Request<GetHeadCountsRequest>,
    ) -> Result<Response<HeadCounts>, Status> {
        let organisation = organisation_id(&request.into_inner().organisation_id)?;
        let (counts, position, is_new) = self
            .database
            .read(organisation, move |c| Box::pin(store::head_counts(c, organisation)))
            .await
            .map_err(Error::Database)?;
        if is_new {
            let bytes = counts.encode_to_vec();
            let kept = self
                .database
                .write(organisation, move |c| {
                    Box::pin(store::keep(c, organisation, bytes, position))
                })
                .await;
            if let Err(error) = kept {
                // They are counted again. The status has been logged.
                drop(database_status(&error));
            }
        }
        Ok(Response::new(counts))
    }
}
