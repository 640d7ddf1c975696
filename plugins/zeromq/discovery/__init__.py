"""Discovery: stations tell the local network where they are (DNS-SD over mDNS)."""
