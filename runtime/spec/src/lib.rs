//! cutover-spec
