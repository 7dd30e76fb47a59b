//! Parts of a user, written as SCIM JSON from identity's messages as they are: no document is made of
//! them first.

use muster_proto::group::v1::Membership;
use muster_proto::identity::v1::{Address, Enterprise, MultiValue, Name};
use muster_runtime::id::UserId;
use muster_scim::schema::{GROUP_TYPE, USER_TYPE};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// A part of a user as it is written, and what references begin with.
pub(super) struct Scim<'a, T> {
    pub(super) value: &'a T,
    scim_url: &'a str,
}

impl<'a, T: Default + PartialEq> Scim<'a, T> {
    /// None where nothing of it is set.
    pub(super) fn of(value: &'a T, scim_url: &'a str) -> Option<Self> {
        (*value != T::default()).then_some(Self { value, scim_url })
    }
}

impl Serialize for Scim<'_, Name> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = self.value;
        let mut parts = Parts(serializer.serialize_map(None)?);
        parts.put("formatted", name.formatted.as_ref())?;
        parts.put("familyName", name.family_name.as_ref())?;
        parts.put("givenName", name.given_name.as_ref())?;
        parts.put("middleName", name.middle_name.as_ref())?;
        parts.put("honorificPrefix", name.honorific_prefix.as_ref())?;
        parts.put("honorificSuffix", name.honorific_suffix.as_ref())?;
        parts.0.end()
    }
}

impl Serialize for Scim<'_, MultiValue> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let one = self.value;
        let mut parts = Parts(serializer.serialize_map(None)?);
        parts.put("value", one.value.as_ref())?;
        parts.put("display", one.display.as_ref())?;
        parts.put("type", one.r#type.as_ref())?;
        parts.put("primary", one.primary.as_ref())?;
        parts.0.end()
    }
}

impl Serialize for Scim<'_, Address> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let address = self.value;
        let mut parts = Parts(serializer.serialize_map(None)?);
        parts.put("formatted", address.formatted.as_ref())?;
        parts.put("streetAddress", address.street_address.as_ref())?;
        parts.put("locality", address.locality.as_ref())?;
        parts.put("region", address.region.as_ref())?;
        parts.put("postalCode", address.postal_code.as_ref())?;
        parts.put("country", address.country.as_ref())?;
        parts.put("type", address.r#type.as_ref())?;
        parts.put("primary", address.primary.as_ref())?;
        parts.0.end()
    }
}

impl Serialize for Scim<'_, Enterprise> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { value: enterprise, scim_url } = self;
        let mut parts = Parts(serializer.serialize_map(None)?);
        parts.put("employeeNumber", enterprise.employee_number.as_ref())?;
        parts.put("costCenter", enterprise.cost_center.as_ref())?;
        parts.put("organization", enterprise.organization.as_ref())?;
        parts.put("division", enterprise.division.as_ref())?;
        parts.put("department", enterprise.department.as_ref())?;
        parts.put("manager", enterprise.manager_id.as_ref().map(|id| Manager { id, scim_url }))?;
        parts.0.end()
    }
}

struct Manager<'a> {
    id: &'a str,
    scim_url: &'a str,
}

impl Serialize for Manager<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { id, scim_url } = self;
        // The address of a user, where the id can be one of ours.
        let is_ours = id.parse::<UserId>().is_ok();
        let mut parts = Parts(serializer.serialize_map(None)?);
        parts.put("value", Some(id))?;
        parts.put(
            "$ref",
            is_ours.then_some(format_args!("{scim_url}{}/{id}", USER_TYPE.endpoint)),
        )?;
        parts.0.end()
    }
}

impl Serialize for Scim<'_, Membership> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { value: group, scim_url } = self;
        let location = format_args!("{scim_url}{}/{}", GROUP_TYPE.endpoint, group.group_id);
        let mut parts = Parts(serializer.serialize_map(None)?);
        parts.put("value", Some(&group.group_id))?;
        parts.put("$ref", Some(location))?;
        parts.put("display", Some(&group.group_display_name))?;
        parts.put("type", Some("direct"))?;
        parts.0.end()
    }
}

/// The parts of an object that is being written: those that are set.
pub(super) struct Parts<M>(pub(super) M);

impl<M: SerializeMap> Parts<M> {
    pub(super) fn put(
        &mut self,
        name: &str,
        value: Option<impl Serialize>,
    ) -> Result<(), M::Error> {
        value.map_or(Ok(()), |value| self.0.serialize_entry(name, &value))
    }

    pub(super) fn list(
        &mut self,
        name: &str,
        values: impl Iterator<Item: Serialize>,
    ) -> Result<(), M::Error> {
        let values: Vec<_> = values.collect();
        self.put(name, (!values.is_empty()).then_some(values))
    }
}
