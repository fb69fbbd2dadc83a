//! file-balancer
