//! test-component-hanging
