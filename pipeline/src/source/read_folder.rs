//! Folders of images: one object an image, fetched many at a time, handed out in order.

use super::{FetchPermit, PinnedObject, Shared, SourceImage};
use crate::{
    PipelineError,
    background_task::{joined, spawn},
};
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::Either,
    stream::{self, BoxStream},
};
use schemas::{PlannedInput, RejectReason};
use std::{future::ready, sync::Arc};

/// Reads the images of these inputs.
#[expect(
    clippy::async_yields_async,
    reason = "the outer future takes bytes in order, the inner one waits for the body"
)]
pub(super) fn read(
    shared: Arc<Shared>,
    inputs: impl Iterator<Item = PlannedInput> + Send + 'static,
) -> BoxStream<'static, Result<SourceImage, PipelineError>> {
    let in_flight = shared.fetch.requests_in_flight;
    stream::iter(inputs)
        // One after another: bytes are taken in the order in which images are handed out.
        .then(move |input| {
            let shared = Arc::clone(&shared);
            async move {
                let object = match PinnedObject::of_input(&shared.storage, &input) {
                    Ok(object) => object,
                    Err(error) => return Either::Left(ready(Err(error))),
                };
                let size = object.size();
                if let Err(rejected) = shared.check_size(size) {
                    return Either::Left(ready(Ok(image(
                        &shared,
                        &input,
                        &object,
                        Err(rejected),
                        FetchPermit::none(),
                    ))));
                }
                if size == 0 {
                    return Either::Left(ready(Ok(image(
                        &shared,
                        &input,
                        &object,
                        Ok(Bytes::new()),
                        FetchPermit::none(),
                    ))));
                }
                let permit = shared.fetch.hold(size).await;
                // A task of its own, so that the body is read even while nobody asks for the next image.
                let task = spawn(async move {
                    let _request = shared.fetch.request().await;
                    let bytes = object.read(None).await?;
                    Ok(image(&shared, &input, &object, Ok(bytes), permit))
                });
                Either::Right(task.then(joined))
            }
        })
        .buffered(in_flight)
        .boxed()
}

fn image(
    shared: &Shared,
    input: &PlannedInput,
    object: &PinnedObject,
    bytes: Result<Bytes, (RejectReason, String)>,
    permit: FetchPermit,
) -> SourceImage {
    SourceImage {
        image_id: shared.image_id.of_file(object.path()),
        source: input.uri.clone(),
        label: input.label,
        class_name: shared.class_name(input.label),
        size: input.size,
        bytes,
        permit,
    }
}
