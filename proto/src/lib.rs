//! Muster's gRPC contracts (`proto/`), and the types, clients and servers generated from them.

/// What the change feeds of all services have in common.
pub mod feed {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("muster.feed.v1");
    }
}

/// The typed filter expression.
pub mod filter {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("muster.filter.v1");
    }
}

/// Organisations, admins, API keys and users.
pub mod identity {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("muster.identity.v1");
    }
}

/// Groups and memberships.
pub mod group {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("muster.group.v1");
    }
}

/// Approvers.
pub mod approver {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("muster.approver.v1");
    }
}

/// The descriptors of all contracts, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
