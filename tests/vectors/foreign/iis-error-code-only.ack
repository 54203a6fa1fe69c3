HTTP/1.1 403 Forbidden
Content-Length: 0
BITS-Packet-Type: Ack
BITS-Error-Code: 0x80070005
Server: Microsoft-IIS/10.0
X-Powered-By: ASP.NET
Date: Thu, 05 Mar 2020 08:15:00 GMT

