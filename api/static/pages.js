// Live updates: what changes on a page is made on the server; this fetches it again when events tell of news.
"use strict";
