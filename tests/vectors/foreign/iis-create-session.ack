HTTP/1.1 200 OK
Content-Length: 0
Accept-Encoding: Identity
BITS-Packet-Type: Ack
BITS-Protocol: {7df0354d-249b-430f-820d-3d2a9bef4931}
BITS-Session-Id: {2C4F5A1E-93B7-4D08-A6C1-7E0F9D3B8A52}
Server: Microsoft-IIS/10.0
X-Powered-By: ASP.NET
Date: Thu, 05 Mar 2020 08:15:00 GMT

