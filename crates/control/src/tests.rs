//! Clusters of control servers: in this process, where the network between them can be cut, and as processes,
//! which can be killed.

mod cut;
mod full;
mod killed;
mod members;
mod recover;
mod slow;
mod stage;
mod storage;
