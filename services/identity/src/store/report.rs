//! Head-counts, and what is remembered of them.

use muster_proto::identity::v1::{HeadCount, HeadCounts};
use muster_runtime::feed::{self, Position};
use muster_runtime::id::OrganisationId;
use prost::Message as _;
use sqlx::PgConnection;

/// The head-counts, the newest change before they were counted, and whether they were counted anew.
pub(crate) async fn head_counts(
    connection: &mut PgConnection,
    organisation: OrganisationId,
) -> Result<(HeadCounts, Position, bool), sqlx::Error> {
    let head = feed::head(connection, organisation).await?.position;
    let kept = sqlx::query!(
        "SELECT sequence, change_id, counts FROM identity.head_counts WHERE organisation_id = $1",
        organisation as OrganisationId,
    )
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(kept) = kept
        && (kept.sequence, kept.change_id) == (head.sequence, head.change_id)
        && let Ok(counts) = HeadCounts::decode(&kept.counts[..])
    {
        return Ok((counts, head, false));
    }
    Ok((count(connection, organisation).await?, head, true))
}

async fn count(
    connection: &mut PgConnection,
    organisation: OrganisationId,
) -> Result<HeadCounts, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT grouping(content_region, custom_field_1_key, custom_field_2_key,
                           custom_field_3_key) AS "by!",
                  content_region AS "content_region?",
                  coalesce(min(custom_field_1) FILTER (WHERE custom_field_1_key IS NOT NULL), '')
                      AS "one!",
                  coalesce(min(custom_field_2) FILTER (WHERE custom_field_2_key IS NOT NULL), '')
                      AS "two!",
                  coalesce(min(custom_field_3) FILTER (WHERE custom_field_3_key IS NOT NULL), '')
                      AS "three!",
                  coalesce(custom_field_1_key, custom_field_2_key, custom_field_3_key) IS NULL
                      AS "has_no_field!",
                  count(*) FILTER (WHERE active) AS "active!",
                  count(*) FILTER (WHERE NOT active) AS "inactive!"
             FROM identity.listed_user
            WHERE organisation_id = $1
            GROUP BY GROUPING SETS ((content_region), (custom_field_1_key), (custom_field_2_key),
                                    (custom_field_3_key))
            ORDER BY count(*) DESC"#,
        organisation as OrganisationId,
    )
    .fetch_all(connection)
    .await?;
    let mut counts = HeadCounts::default();
    for row in rows {
        let (list, value) = match row.by {
            // A bit is 0 where it is what rows were grouped by.
            0b0111 => (&mut counts.content_regions, region(row.content_region)),
            _ if row.has_no_field => continue,
            0b1011 => (&mut counts.custom_field_1, row.one),
            0b1101 => (&mut counts.custom_field_2, row.two),
            _ => (&mut counts.custom_field_3, row.three),
        };
        if list.len() < 1_000 {
            list.push(HeadCount { value, active_count: row.active, inactive_count: row.inactive });
        }
    }
    Ok(counts)
}

/// The content region that a column's number stands for.
fn region(number: Option<i16>) -> String {
    use muster_proto::identity::v1::ContentRegion;
    let region = ContentRegion::try_from(i32::from(number.unwrap_or_default()));
    let name = region.unwrap_or(ContentRegion::Qq).as_str_name();
    name.strip_prefix("CONTENT_REGION_").unwrap_or(name).to_owned()
}

/// Remembers head-counts.
pub(crate) async fn keep(
    connection: &mut PgConnection,
    organisation: OrganisationId,
    counts: Vec<u8>,
    position: Position,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO identity.head_counts (organisation_id, sequence, change_id, counts)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (organisation_id) DO UPDATE
            SET sequence = EXCLUDED.sequence, change_id = EXCLUDED.change_id,
                counts = EXCLUDED.counts",
        organisation as OrganisationId,
        position.sequence,
        position.change_id,
        counts,
    )
    .execute(connection)
    .await
    .map(drop)
}
