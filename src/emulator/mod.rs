//! CSMS, IAM and the metadata service in one process, for the demo and the tests.
