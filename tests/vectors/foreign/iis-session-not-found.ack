HTTP/1.1 500 Internal Server Error
Content-Length: 0
BITS-Packet-Type: Ack
BITS-Error-Code: 0x8020001f
BITS-Error-Context: 0x5
Server: Microsoft-IIS/10.0
X-Powered-By: ASP.NET
Date: Thu, 05 Mar 2020 08:15:00 GMT

