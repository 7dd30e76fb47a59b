//! From a typed filter to SQL: the one place where conditions are put together at run time. What a
//! client sent is always bound, never written into the text.

use muster_proto::filter::v1::comparison::Operand;
use muster_proto::filter::v1::filter::Kind;
use muster_proto::filter::v1::{Comparison, Filter, Operator};
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use crate::clock;

/// Where an attribute stands. The expressions are constants of the service.
#[derive(Debug, Clone)]
pub enum Column {
    /// Text; null where it is unassigned.
    Text {
        /// The expression.
        sql: String,
        /// Whether it holds keys that ignore case.
        folded: bool,
        /// A column with an index and the same keys, but for those too long for it.
        indexed: Option<&'static str>,
    },
    /// An id.
    Id {
        /// The expression.
        sql: &'static str,
    },
    /// A moment.
    Time {
        /// The expression.
        sql: &'static str,
    },
    /// A truth value; null where it is unassigned.
    Boolean {
        /// The expression.
        sql: String,
        /// A column with an index that has the same value, but false for null.
        indexed: Option<&'static str>,
    },
    /// A complex attribute as a whole: only whether it is there.
    Whole {
        /// The expression.
        sql: String,
    },
    /// A multi-valued attribute, or a part of its values.
    Each {
        /// What to select from; each row is a value.
        elements: String,
        /// The part, relative to the row; none for the value itself.
        part: Option<Box<Column>>,
    },
    /// Equality is a look-up elsewhere.
    Lookup {
        /// A condition up to the key of the value, which a parenthesis closes.
        sql: String,
        /// For everything but equality.
        otherwise: Option<Box<Column>>,
    },
}

/// How a service's attributes are filtered by.
pub struct Columns<'a> {
    /// Where an attribute stands; none where it cannot be filtered by.
    pub find: &'a dyn Fn(&str) -> Option<Column>,
    /// The key of a text that ignores case.
    pub fold: fn(&str) -> String,
    /// The key of a part of a text, whose blanks count.
    pub fold_part: fn(&str) -> String,
}

/// Why a filter has no SQL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// The attribute does not compare so.
    #[error("compares {0} in a way that is not supported")]
    Comparison(String),
    /// There is nothing to compare.
    #[error("is empty")]
    Empty,
}

/// The longest key in an indexed column, in bytes.
const LONGEST_KEY: usize = 512;

impl Columns<'_> {
    /// Pushes a condition that is true or false for every row, never null, so that `NOT` means
    /// what it says.
    pub fn push(
        &self,
        query: &mut QueryBuilder<Postgres>,
        filter: &Filter,
    ) -> Result<(), Unsupported> {
        match filter.kind.as_ref().ok_or(Unsupported::Empty)? {
            Kind::All(filters) => self.join(query, &filters.filters, " AND "),
            Kind::Any(filters) => self.join(query, &filters.filters, " OR "),
            Kind::Not(filter) => {
                query.push("NOT ");
                self.push(query, filter)
            }
            Kind::Comparison(comparison) => {
                let column = self.column(&comparison.attribute)?;
                self.compare(query, &column, comparison)
            }
            Kind::Present(attribute) => {
                present(query, &self.column(attribute)?);
                Ok(())
            }
            Kind::Value(value) => {
                let attribute = value.attribute.as_str();
                let filter = value.filter.as_ref().ok_or(Unsupported::Empty)?;
                let Some(Column::Each { elements, .. }) = (self.find)(attribute) else {
                    return Err(Unsupported::Comparison(attribute.to_owned()));
                };
                let part = |name: &str| {
                    let each = match (self.find)(&format!("{attribute}.{name}"))? {
                        Column::Lookup { otherwise, .. } => *otherwise?,
                        column => column,
                    };
                    match each {
                        Column::Each { part, .. } => part.map(|part| *part),
                        _ => None,
                    }
                };
                query.push("(");
                if let Some((sql, text)) = self.looked_up(attribute, filter) {
                    query.push(sql).push_bind((self.fold)(text)).push(") AND ");
                }
                query.push("EXISTS (SELECT FROM ").push(elements).push(" WHERE ");
                Columns { find: &part, ..*self }.push(query, filter)?;
                query.push("))");
                Ok(())
            }
            Kind::Ids(ids) => {
                let Column::Id { sql } = self.column("id")? else {
                    return Err(Unsupported::Comparison("id".to_owned()));
                };
                // What is no id is nobody's.
                let ids: Vec<Uuid> = ids.ids.iter().filter_map(|id| canonical_uuid(id)).collect();
                query.push(sql).push(" = ANY (").push_bind(ids).push(")");
                Ok(())
            }
        }
    }

    /// A look-up that whoever has such a value of `attribute` is among, and of what.
    fn looked_up<'f>(&self, attribute: &str, filter: &'f Filter) -> Option<(String, &'f str)> {
        match filter.kind.as_ref()? {
            Kind::All(filters) => {
                filters.filters.iter().find_map(|filter| self.looked_up(attribute, filter))
            }
            Kind::Comparison(comparison) if comparison.operator() == Operator::Equal => {
                let Some(Operand::Text(text)) = &comparison.operand else { return None };
                match (self.find)(&format!("{attribute}.{}", comparison.attribute))? {
                    Column::Lookup { sql, .. } => Some((sql, text)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Pushes what to order by, with a comma after it: nothing for an empty `order_by`. What has no
    /// value comes last, and first the other way round (RFC 7644 §3.4.2.3).
    pub fn push_order(
        &self,
        query: &mut QueryBuilder<Postgres>,
        order_by: &str,
    ) -> Result<(), Unsupported> {
        let (attribute, descending) = match order_by.strip_suffix(" desc") {
            Some(attribute) => (attribute, true),
            None => (order_by, false),
        };
        if attribute.is_empty() {
            return Ok(());
        }
        let sql = ordering(&self.column(attribute)?)
            .ok_or_else(|| Unsupported::Comparison(attribute.to_owned()))?;
        query.push(sql).push(if descending { " DESC NULLS FIRST, " } else { " ASC NULLS LAST, " });
        Ok(())
    }

    fn column(&self, attribute: &str) -> Result<Column, Unsupported> {
        (self.find)(attribute).ok_or_else(|| Unsupported::Comparison(attribute.to_owned()))
    }

    fn join(
        &self,
        query: &mut QueryBuilder<Postgres>,
        filters: &[Filter],
        separator: &str,
    ) -> Result<(), Unsupported> {
        if filters.is_empty() {
            return Err(Unsupported::Empty);
        }
        for (position, filter) in filters.iter().enumerate() {
            query.push(if position == 0 { "(" } else { separator });
            self.push(query, filter)?;
        }
        query.push(")");
        Ok(())
    }

    fn compare(
        &self,
        query: &mut QueryBuilder<Postgres>,
        column: &Column,
        comparison: &Comparison,
    ) -> Result<(), Unsupported> {
        let unsupported = || Unsupported::Comparison(comparison.attribute.clone());
        let operator = comparison.operator();
        // Not equal is not (any value equal), also for what has no value or several.
        if operator == Operator::NotEqual {
            query.push("NOT ");
            let equal = Comparison { operator: Operator::Equal.into(), ..comparison.clone() };
            return self.compare(query, column, &equal);
        }
        match (column, &comparison.operand) {
            (Column::Each { elements, part }, operand) => {
                let part = part.as_deref().ok_or_else(unsupported)?;
                query.push(if operand.is_none() { "NOT EXISTS (" } else { "EXISTS (" });
                query.push("SELECT FROM ").push(elements).push(" WHERE ");
                if operand.is_none() {
                    query.push("NOT ");
                }
                self.compare(query, part, comparison)?;
                query.push(")");
            }
            (Column::Lookup { sql, .. }, Some(Operand::Text(text)))
                if operator == Operator::Equal =>
            {
                query.push(sql).push_bind((self.fold)(text)).push(")");
            }
            (Column::Lookup { otherwise, .. }, _) => {
                let column = otherwise.as_deref().ok_or_else(unsupported)?;
                self.compare(query, column, comparison)?;
            }
            (
                Column::Text { sql, .. } | Column::Boolean { sql, .. } | Column::Whole { sql },
                None,
            ) => {
                query.push("(").push(sql).push(" IS NULL)");
            }
            (Column::Id { .. } | Column::Time { .. }, None) => {
                query.push("false");
            }
            (Column::Text { sql, folded, indexed }, Some(Operand::Text(text))) => {
                let part = matches!(
                    operator,
                    Operator::Contains | Operator::StartsWith | Operator::EndsWith
                );
                let text = match (*folded, part) {
                    (true, true) => (self.fold_part)(text),
                    (true, false) => (self.fold)(text),
                    (false, _) => text.clone(),
                };
                let sql = match indexed {
                    Some(column) if operator == Operator::Equal && text.len() <= LONGEST_KEY => {
                        column
                    }
                    _ => sql.as_str(),
                };
                compare_text(query, sql, operator, text).ok_or_else(unsupported)?;
            }
            (Column::Id { sql }, Some(Operand::Text(text))) if operator == Operator::Equal => {
                match canonical_uuid(text) {
                    Some(id) => query.push(sql).push(" = ").push_bind(id),
                    None => query.push("false"),
                };
            }
            (Column::Id { sql }, Some(Operand::Text(text))) => {
                compare_text(query, &format!("({sql}::text)"), operator, text.clone())
                    .ok_or_else(unsupported)?;
            }
            (Column::Time { sql }, Some(Operand::Time(moment))) => {
                let moment = clock::time_of(*moment).ok_or_else(unsupported)?;
                let symbol = symbol(operator).ok_or_else(unsupported)?;
                query.push("(").push(sql).push(symbol).push_bind(moment).push(")");
            }
            (Column::Boolean { sql, indexed }, Some(Operand::Boolean(value)))
                if operator == Operator::Equal =>
            {
                query.push("(");
                if let Some(column) = indexed {
                    // As text, so that the planner sees a partial index's condition.
                    query.push(if *value { "" } else { "NOT " }).push(column).push(" AND ");
                }
                query.push("coalesce(").push(sql).push(" = ").push_bind(*value).push(", false))");
            }
            _ => return Err(unsupported()),
        }
        Ok(())
    }
}

/// None where text does not compare so.
fn compare_text(
    query: &mut QueryBuilder<Postgres>,
    sql: &str,
    operator: Operator,
    text: String,
) -> Option<()> {
    match operator {
        Operator::Contains => {
            query
                .push("coalesce(strpos(")
                .push(sql)
                .push(", ")
                .push_bind(text)
                .push(") > 0, false)");
        }
        Operator::StartsWith => {
            query.push("(").push(sql).push(" IS NOT NULL AND ").push(sql).push(" ^@ ");
            query.push_bind(text).push(")");
        }
        Operator::EndsWith => {
            query.push("coalesce(right(").push(sql).push(", length(").push_bind(text.clone());
            query.push(")) = ").push_bind(text).push(", false)");
        }
        _ => {
            let symbol = symbol(operator)?;
            query.push("(").push(sql).push(" IS NOT NULL AND ").push(sql);
            if operator != Operator::Equal {
                query.push(" COLLATE \"C\"");
            }
            query.push(symbol).push_bind(text).push(")");
        }
    }
    Some(())
}

fn symbol(operator: Operator) -> Option<&'static str> {
    Some(match operator {
        Operator::Equal => " = ",
        Operator::Greater => " > ",
        Operator::GreaterOrEqual => " >= ",
        Operator::Less => " < ",
        Operator::LessOrEqual => " <= ",
        _ => return None,
    })
}

fn present(query: &mut QueryBuilder<Postgres>, column: &Column) {
    match column {
        Column::Text { sql, .. } => {
            query.push("coalesce(").push(sql).push(" <> '', false)");
        }
        Column::Id { .. } | Column::Time { .. } => {
            query.push("true");
        }
        Column::Boolean { sql, .. } | Column::Whole { sql } => {
            query.push("(").push(sql).push(" IS NOT NULL)");
        }
        Column::Each { elements, part } => {
            query.push("EXISTS (SELECT FROM ").push(elements);
            if let Some(part) = part {
                query.push(" WHERE ");
                present(query, part);
            }
            query.push(")");
        }
        Column::Lookup { otherwise, .. } => match otherwise {
            Some(column) => present(query, column),
            None => {
                query.push("false");
            }
        },
    }
}

/// What a column is ordered by; none where it has no order.
fn ordering(column: &Column) -> Option<String> {
    Some(match column {
        Column::Text { sql, .. } => format!("{sql} COLLATE \"C\""),
        Column::Id { sql } | Column::Time { sql } => (*sql).to_owned(),
        Column::Boolean { sql, .. } => sql.clone(),
        // The primary value, else the first (RFC 7644 §3.4.2.3).
        Column::Each { elements, part } => format!(
            "(SELECT {} FROM {elements}
               ORDER BY (v.value->>'primary')::boolean DESC NULLS LAST LIMIT 1)",
            ordering(part.as_deref()?)?
        ),
        Column::Lookup { otherwise, .. } => ordering(otherwise.as_deref()?)?,
        Column::Whole { .. } => return None,
    })
}

/// An id in the one spelling that ids have.
fn canonical_uuid(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok()?;
    (id.hyphenated().to_string() == text).then_some(id)
}
