//! A device plugin, as a node calls it: what comes of it is bounded before it is decoded.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, Streaming};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{IntoRequest, Request, Response, Status};
use tonic_prost::ProstEncoder;

use crate::MAX_MESSAGE;
use crate::deviceplugin::{
    AllocateRequest, AllocateResponse, DevicePluginOptions, Empty, PreStartContainerRequest,
    PreStartContainerResponse, PreferredAllocationRequest, PreferredAllocationResponse,
};
use crate::wire::{Fields, Value};

/// The longest answer that is taken, in octets, but for lists of devices: gRPC's own bound.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// How many elements the lists in an answer may have together. Each may be of two octets, and takes forty times as many when
/// it is decoded.
const MOST_ELEMENTS: usize = 32 * 1024;

/// A client of `v1beta1.DevicePlugin`.
#[derive(Clone, Debug)]
pub struct PluginClient {
    grpc: Grpc<Channel>,
}

/// Messages go out as any, and come as octets.
struct Raw;

/// Messages go out as any, and come bounded.
struct Bounded<M, A>(PhantomData<(M, A)>);

/// Decodes a message that has no more in it than it may.
struct BoundedDecoder<A>(PhantomData<A>);

// === impl PluginClient ===

impl PluginClient {
    /// Of the plugin at the other end.
    pub fn new(channel: Channel) -> Self {
        Self { grpc: Grpc::new(channel).max_encoding_message_size(MAX_MESSAGE) }
    }

    /// `GetDevicePluginOptions`.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn get_device_plugin_options(
        &self,
        request: impl IntoRequest<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        self.unary("/v1beta1.DevicePlugin/GetDevicePluginOptions", request.into_request()).await
    }

    /// `ListAndWatch`: each message an encoded `ListAndWatchResponse`, of [`MAX_MESSAGE`] at the most. Of a plugin that sends
    /// many only the latest need be decoded.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn list_and_watch(&self) -> Result<Streaming<Bytes>, Status> {
        let mut grpc = self.grpc.clone().max_decoding_message_size(MAX_MESSAGE);
        ready(&mut grpc).await?;
        let path = PathAndQuery::from_static("/v1beta1.DevicePlugin/ListAndWatch");
        grpc.server_streaming(Request::new(Empty {}), path, Raw).await.map(Response::into_inner)
    }

    /// `GetPreferredAllocation`.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn get_preferred_allocation(
        &self,
        request: impl IntoRequest<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        self.unary("/v1beta1.DevicePlugin/GetPreferredAllocation", request.into_request()).await
    }

    /// `Allocate`.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn allocate(
        &self,
        request: impl IntoRequest<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        self.unary("/v1beta1.DevicePlugin/Allocate", request.into_request()).await
    }

    /// `PreStartContainer`.
    ///
    /// # Errors
    /// The plugin's.
    pub async fn pre_start_container(
        &self,
        request: impl IntoRequest<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        self.unary("/v1beta1.DevicePlugin/PreStartContainer", request.into_request()).await
    }

    async fn unary<M, A>(&self, method: &'static str, request: Request<M>) -> Result<Response<A>, Status>
    where
        M: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc.clone().max_decoding_message_size(MAX_ANSWER);
        ready(&mut grpc).await?;
        grpc.unary(request, PathAndQuery::from_static(method), Bounded::<M, A>(PhantomData)).await
    }
}

/// Waits until the connection takes a call.
async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))
}

/// How many fields a message has, and what in it may be messages.
fn elements(message: &[u8]) -> usize {
    let within = |value| match value {
        Value::Bytes(inner) => Fields::of(inner).count(),
        _ => 0,
    };
    Fields::of(message).map_while(Result::ok).map(|(_, value)| 1 + within(value)).sum()
}

// === impl Raw ===

impl Codec for Raw {
    type Encode = Empty;
    type Decode = Bytes;
    type Encoder = ProstEncoder<Empty>;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

// === impl Bounded ===

impl<M: Message + 'static, A: Message + Default + 'static> Codec for Bounded<M, A> {
    type Encode = M;
    type Decode = A;
    type Encoder = ProstEncoder<M>;
    type Decoder = BoundedDecoder<A>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

impl<A: Message + Default> Decoder for BoundedDecoder<A> {
    type Item = A;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<A>, Status> {
        let message = message.copy_to_bytes(message.remaining());
        let elements = elements(&message);
        if elements > MOST_ELEMENTS {
            let problem = format!("the answer has {elements} elements, and may have {MOST_ELEMENTS}");
            return Err(Status::out_of_range(problem));
        }
        A::decode(message)
            .map(Some)
            .map_err(|error| Status::internal(format!("the answer is no message: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deviceplugin::{ContainerAllocateResponse, ContainerPreferredAllocationResponse, DeviceSpec};

    #[test]
    fn what_an_answer_has_in_it_is_counted_before_it_is_decoded() {
        let one = ContainerPreferredAllocationResponse { device_i_ds: vec![String::new(); 5000] };
        let preferred = PreferredAllocationResponse { container_responses: vec![one.clone(), one] };
        assert_eq!(elements(&preferred.encode_to_vec()), 10_002);
        let devices = vec![DeviceSpec::default(); 7000];
        let answer = ContainerAllocateResponse { devices, ..Default::default() };
        let allocated = AllocateResponse { container_responses: vec![answer] };
        assert_eq!(elements(&allocated.encode_to_vec()), 7001);
        assert_eq!(elements(b"\xff"), 0);
    }
}
