"""Video: pictures with times in, poses with identities out."""
