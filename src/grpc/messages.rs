//! The messages of `spec/grpc/*.proto`.
//!
//! They are written here rather than generated: there are five small ones, the four kinds share one pair, and so a
//! build needs neither `protoc` nor a generator. A test holds them against the .proto files field by field.

use bytes::Bytes;

/// `dfdaemon.v2.Download…PieceRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PieceRequest {
    #[prost(string, tag = "1")]
    pub(crate) host_id: String,
    #[prost(string, tag = "2")]
    pub(crate) task_id: String,
    #[prost(uint32, tag = "3")]
    pub(crate) piece_number: u32,
}

/// `dfdaemon.v2.Download…PieceResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PieceResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) piece: Option<Piece>,
    #[prost(string, optional, tag = "2")]
    pub(crate) digest: Option<String>,
}

/// `common.v2.Piece`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Piece {
    #[prost(uint32, tag = "1")]
    pub(crate) number: u32,
    #[prost(string, optional, tag = "2")]
    pub(crate) parent_id: Option<String>,
    #[prost(uint64, tag = "3")]
    pub(crate) offset: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) length: u64,
    #[prost(string, tag = "5")]
    pub(crate) digest: String,
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub(crate) content: Option<Bytes>,
    /// `common.v2.TrafficType`. Any value is taken: it decides nothing.
    #[prost(int32, optional, tag = "7")]
    pub(crate) traffic_type: Option<i32>,
    #[prost(message, optional, tag = "8")]
    pub(crate) cost: Option<Time>,
    #[prost(message, optional, tag = "9")]
    pub(crate) created_at: Option<Time>,
}

/// `google.protobuf.Duration` and `google.protobuf.Timestamp`, which have the same fields.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Time {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}
