//! test-component-hungry
