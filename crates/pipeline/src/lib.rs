//! Processing pipelines: fused stages, parallel segments, order kept, items in flight bounded.
