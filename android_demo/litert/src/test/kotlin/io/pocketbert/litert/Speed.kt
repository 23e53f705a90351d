/* Measures LiteRT, as io.pocketbert.host.speed describes: the folder of a bundle, a scratch folder, a text. */
package io.pocketbert.litert

import com.google.ai.edge.litert.Environment
import io.pocketbert.host.speed
import java.io.File

fun main(arguments: Array<String>) {
    val (bundle, scratch, text) = arguments
    Environment.create().close() // loads the library, as an app has it loaded
    speed(LiteRtEngine.kind(2, File(scratch, "cache")), File(bundle), File(scratch), text)
}
