//! test-component-lying
