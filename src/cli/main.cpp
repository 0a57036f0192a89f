#include "cli/commands.hpp"
#include "base/error.hpp"
#include <cstdio>
int main(int argc,char**argv){ CLI::App app; app.require_subcommand(1); mxlm::cli::add_cast(app); mxlm::cli::add_formats(app);
 try{ app.parse(argc,argv);}catch(const CLI::ParseError&e){return app.exit(e)?2:0;}catch(const mxlm::UsageError&e){fprintf(stderr,"%s\n",e.what());return 2;}catch(const mxlm::Error&e){fprintf(stderr,"%s\n",e.what());return 1;} }
