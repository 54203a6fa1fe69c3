HTTP/1.1 200 OK
Content-Type: text/html
Content-Length: 35

<html><body>It works!</body></html>