//! test-component-trapping
