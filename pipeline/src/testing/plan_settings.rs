//! Settings of plans, for tests of sources.

use schemas::{
    Crop, ImageIdRule, ImageOrigin, Origin, PlanSettings, SourceLayout, SourceReading, TokenLevels, TokenizerIdentity,
};

/// Settings of a small run. Source and layout are the listing's.
pub fn plan_settings(unit_size: usize, image_id: ImageIdRule) -> PlanSettings {
    PlanSettings {
        source: String::new(),
        split: "train".to_owned(),
        tokenizer: TokenizerIdentity {
            name: "test".to_owned(),
            sha256: "0".repeat(64),
            codebook_size: 16,
            levels: TokenLevels::published(4).expect("a power of two"),
        },
        precision: "fp32".to_owned(),
        batch_size: 4,
        unit_size,
        origin: Origin::Images(ImageOrigin {
            layout: SourceLayout::Folder,
            image_id,
            crop: Crop::AdmCenter { size: 32 },
            max_image_bytes: 1 << 20,
            max_image_pixels: 1 << 20,
            reading: SourceReading::default(),
        }),
    }
}
